"""A conversion in a process of its own: its job, what runs in that process, and the half that starts and ends it.

By hand: `python -m core.optimiser.convert_child JOB.json`, a job as `ConvertJob.to_json` makes it. The process
answers one line of JSON: `{"done": {path, format, notes}}` or `{"failed": sentence}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed
from core.optimiser.converted import Converted
from core.validation.room import confined, drain, send

_MAX_ANSWER_BYTES: Final = 1 << 17
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ConvertLimits:
    """What a conversion may take: seconds, seconds of CPU, address space, and bytes of one file it writes."""

    wall_s: float = 300.0
    cpu_s: int = 900
    memory_bytes: int = 16 * _GIB
    file_bytes: int = 8 * _GIB


DEFAULT_LIMITS: Final = ConvertLimits()


@dataclass(frozen=True, slots=True)
class ConvertJob:
    """One conversion: its name, the model file, the folder for the result, and feeds in .npz files."""

    name: str
    source: Path
    into: Path
    feeds: Sequence[Path] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, limits: ConvertLimits = DEFAULT_LIMITS) -> dict[str, Any]:
        """What the process reads."""
        return {
            "name": self.name,
            "source": str(self.source.absolute()),
            "into": str(self.into.absolute()),
            "feeds": [str(path.absolute()) for path in self.feeds],
            "options": dict(self.options),
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "parent": os.getpid(),
        }


async def run_conversion(job: ConvertJob, limits: ConvertLimits = DEFAULT_LIMITS) -> Converted:
    """Convert in a confined process; cancelling ends it. Raises ConversionFailed for whatever becomes of it."""
    errors = bytearray()
    text = json.dumps(job.to_json(limits)).encode()
    async with confined("core.optimiser.convert_child", "pulvinar-conversion-") as process:
        try:
            async with asyncio.timeout(limits.wall_s):
                _, answer, _ = await asyncio.gather(
                    send(process, text), _answer_of(process), drain(process, errors)
                )
                returncode = await process.wait()
        except TimeoutError:
            raise ConversionFailed(
                f"The conversion {job.name} took longer than {limits.wall_s:g} s and was ended."
            ) from None
    return await asyncio.to_thread(_result, job, answer, returncode, bytes(errors))


async def _answer_of(process: Process) -> bytes:
    """The one line it answers; more than a line can be is cut off, and then is none."""
    assert process.stdout is not None
    answer = b""
    while chunk := await process.stdout.read(1 << 14):
        answer = (answer + chunk)[:_MAX_ANSWER_BYTES]
    return answer


def _result(job: ConvertJob, answer: bytes, returncode: int, errors: bytes) -> Converted:
    try:
        said = json.loads(answer) if answer else {}
        if "failed" in said:
            raise ConversionFailed(str(said["failed"])[:600])
        if "done" in said:
            return _checked(Converted.from_json(said["done"]), job.into)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionFailed(f"The conversion {job.name} answered with something that is no result.") from error
    raise ConversionFailed(_cause(job.name, returncode, errors))


def _checked(made: Converted, into: Path) -> Converted:
    """The result, if it is a plain file in the folder it was to go to, among plain files."""
    root = into.resolve()
    if made.path.resolve().parent != root:
        raise ValueError("a result elsewhere")
    for entry in root.iterdir():
        if not stat.S_ISREG(entry.lstat().st_mode):
            raise ValueError("a result that is no plain file")
    if not made.path.is_file():
        raise ValueError("no result")
    return made


def _cause(name: str, returncode: int, errors: bytes) -> str:
    number = -returncode if returncode < 0 else 0
    if number == signal.SIGXCPU:
        return f"The conversion {name} used up its CPU time and was ended."
    if b"bad_alloc" in errors or b"MemoryError" in errors:
        return f"The conversion {name} ran out of memory."
    if number == signal.SIGKILL:
        return f"The conversion {name} was killed, most likely because the machine ran out of memory."
    if number:
        return f"The conversion {name} crashed with signal {number}."
    return f"The conversion {name} ended early with status {returncode}."


def main() -> None:
    """Run the job of the file named first, or of stdin; every limit is in place before the model is touched."""
    from core.validation.child import confine, report_channel

    by_hand = sys.argv[0] != "-c"
    job = json.loads(Path(sys.argv[1]).read_bytes() if by_hand else sys.stdin.buffer.read())
    parent = os.getppid() if by_hand else int(job["parent"])
    confine(int(job["memory_bytes"]), int(job["cpu_s"]), parent, int(job["file_bytes"]))
    emit = report_channel()
    emit(_convert(job))


def _convert(job: Mapping[str, Any]) -> dict[str, Any]:
    from core.optimiser.conversion import convert  # loads NumPy and the libraries: only within the limits
    from core.optimiser.feeds import NpzFeeds

    feeds = NpzFeeds([Path(path) for path in job["feeds"]])
    try:
        made = convert(job["name"], Path(job["source"]), Path(job["into"]), feeds, options=job["options"])
    except ConversionFailed as error:
        return {"failed": error.message}
    except MemoryError:
        return {"failed": f"The conversion {job['name']} ran out of memory."}
    return {"done": made.to_json()}


if __name__ == "__main__":
    main()
