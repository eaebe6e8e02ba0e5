"""Asking a process of its own for one piece of work: a job goes in, one line of JSON comes out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed, PlatformError
from core.validation.room import confined, drain, send

_MAX_ANSWER_BYTES: Final = 4 << 20
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ConvertLimits:
    """What a conversion may take: seconds, seconds of CPU, address space, and bytes of one file it writes."""

    wall_s: float = 300.0
    cpu_s: int = 900
    memory_bytes: int = 16 * _GIB
    file_bytes: int = 8 * _GIB

    def to_json(self) -> dict[str, int]:
        """What the process sets on itself, and whose child it has to be."""
        return {
            "cpu_s": self.cpu_s,
            "memory_bytes": self.memory_bytes,
            "file_bytes": self.file_bytes,
            "parent": os.getpid(),
        }


DEFAULT_LIMITS: Final = ConvertLimits()


async def ask(module: str, job: Mapping[str, Any], limits: ConvertLimits, what: str) -> Any:
    """What `module`'s `main` answers to the job, in a confined process; cancelling ends it.

    Raises ConversionFailed for what it says went wrong, and for whatever becomes of it; `what` is named then.
    """
    errors = bytearray()
    text = json.dumps({**job, **limits.to_json()}).encode()
    async with confined(module, "pulvinar-conversion-") as process:
        try:
            async with asyncio.timeout(limits.wall_s):
                _, answer, _ = await asyncio.gather(send(process, text), _read(process), drain(process, errors))
                returncode = await process.wait()
        except TimeoutError:
            raise ConversionFailed(f"{what} took longer than {limits.wall_s:g} s and was ended.") from None
    return _said(answer, returncode, bytes(errors), what)


async def _read(process: Process) -> bytes:
    """All that it answers; what is more than an answer can be is cut off, and then is none."""
    assert process.stdout is not None
    answer = b""
    while chunk := await process.stdout.read(1 << 16):
        answer = (answer + chunk)[:_MAX_ANSWER_BYTES]
    return answer


def _said(answer: bytes, returncode: int, errors: bytes, what: str) -> Any:
    try:
        said = json.loads(answer) if answer else {}
        if "done" in said:
            return said["done"]
        failed = said.get("failed")
    except (ValueError, TypeError, AttributeError) as error:
        raise ConversionFailed(f"{what} answered with something that is no result.") from error
    raise ConversionFailed(str(failed)[:600] if failed else _cause(what, returncode, errors))


def _cause(what: str, returncode: int, errors: bytes) -> str:
    number = -returncode if returncode < 0 else 0
    if number == signal.SIGXCPU:
        return f"{what} used up its CPU time and was ended."
    if b"bad_alloc" in errors or b"MemoryError" in errors:
        return f"{what} ran out of memory."
    if number == signal.SIGKILL:
        return f"{what} was killed, most likely because the machine ran out of memory."
    if number:
        return f"{what} crashed with signal {number}."
    return f"{what} ended early with status {returncode}."


def answer_job(work: Callable[[Mapping[str, Any]], Any]) -> None:
    """The other end: read the job (from stdin, or by hand from the file named first), and answer what `work` says.

    Every limit is in place before `work` is called, which is where libraries are loaded and the model is touched.
    """
    from core.validation.child import confine, report_channel

    by_hand = sys.argv[0] != "-c"
    job = json.loads(Path(sys.argv[1]).read_bytes() if by_hand else sys.stdin.buffer.read())
    parent = os.getppid() if by_hand else int(job["parent"])
    confine(int(job["memory_bytes"]), int(job["cpu_s"]), parent, int(job["file_bytes"]))
    emit = report_channel()
    try:
        emit({"done": work(job)})
    except PlatformError as error:
        emit({"failed": error.message})
    except MemoryError:
        emit({"failed": "There was not enough memory for it."})
