from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import core
from core.settings import ValidationSettings
from core.validation.report import Report, Row, ValidationResult, cause_of_death

_PROJECT: Final = Path(core.__path__[0]).resolve().parent
# -I takes the environment and the working directory out of Python's path; the project is put back by hand.
_START: Final = "import sys; sys.path.append(sys.argv[1]); from core.validation.child import main; main()"
_MAX_OUTPUT_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 1 << 18
_MAX_ERROR_BYTES: Final = 64 << 10
_REAP_S: Final = 10.0

__all__ = ["ValidationResult", "validate"]


async def validate(
    artifact_root: Path,
    manifest: Mapping[str, Any],
    limits: ValidationSettings,
    on_check: Callable[[Row], None] | None = None,
) -> ValidationResult:
    """Try a model in a process of its own and report on it.

    The process has no environment, capped memory, CPU time and files, and `limits.wall_s` to live; whatever
    becomes of it becomes a row of the report. Cancelling ends it. `on_check` sees each row as it comes.
    """
    report = Report(on_check)
    started = time.perf_counter()
    async with _validator() as process:
        cause = await _watch(process, _job(artifact_root, manifest, limits), report, limits)
    if cause is not None:
        seen_ms = sum(row["ms"] for row in report.rows)
        report.add(report.running, False, cause, round((time.perf_counter() - started) * 1000 - seen_ms, 1))
    return report.result()


def _job(root: Path, manifest: Mapping[str, Any], limits: ValidationSettings) -> bytes:
    job = {
        "root": str(root.absolute()),
        "manifest": manifest,
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "parent": os.getpid(),
    }
    return json.dumps(job).encode()


async def _watch(process: Process, job: bytes, report: Report, limits: ValidationSettings) -> str | None:
    """Feed and follow the process; None when it came to its end, otherwise why it did not."""
    errors = bytearray()
    try:
        async with asyncio.timeout(limits.wall_s):
            await asyncio.gather(_send(process, job), _follow(process, report), _drain(process, errors))
            returncode = await process.wait()
    except TimeoutError:
        return (
            f"The model took longer than {limits.wall_s:g} s (validation.wall_s) and was ended; look for loops "
            "that do not end, or ask for a higher limit."
        )
    if report.broken:
        return "The validator answered with something that is not a report; the model may have taken it over."
    return (
        None if report.end is not None and returncode == 0 else cause_of_death(returncode, bytes(errors), limits)
    )


@asynccontextmanager
async def _validator() -> AsyncIterator[Process]:
    """A validator's process in a session and an empty directory of its own; all of it is gone at the end."""
    directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="pulvinar-validation-")
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _START, str(_PROJECT)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment(directory),
            cwd=directory,
            start_new_session=True,
            limit=_MAX_LINE_BYTES,
        )
        try:
            yield process
        finally:
            await _end(process)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _environment(directory: str) -> dict[str, str]:
    # Threads of numeric libraries take address space, which is capped, and are not needed.
    return {
        "LANG": "C.UTF-8",
        "TMPDIR": directory,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


async def _end(process: Process) -> None:
    """Kill the whole session and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_S):
            await process.wait()


async def _send(process: Process, job: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(job)
        await process.stdin.drain()
    process.stdin.close()


async def _follow(process: Process, report: Report) -> None:
    """Feed the report line by line; a flood or a line that is none ends the process."""
    assert process.stdout is not None
    size_bytes = 0
    with contextlib.suppress(ValueError):  # readline's word for a line over the limit
        while line := await process.stdout.readline():
            size_bytes += len(line)
            if size_bytes > _MAX_OUTPUT_BYTES or not report.feed(line):
                break
        else:
            return
    report.broken = True
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _drain(process: Process, errors: bytearray) -> None:
    """Keep the last of what is said on stderr, and never let it block the process."""
    assert process.stderr is not None
    while chunk := await process.stderr.read(1 << 14):
        errors += chunk
        del errors[:-_MAX_ERROR_BYTES]
