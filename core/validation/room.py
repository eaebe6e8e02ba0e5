"""A process for code that is not trusted: no environment, a directory of its own, and gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import core

_PROJECT: Final = Path(core.__path__[0]).resolve().parent
# -I takes the environment and the working directory out of Python's path; the project is put back by hand.
_START: Final = "import sys; sys.path.append(sys.argv[1]); from {} import main; main()"
_MAX_LINE_BYTES: Final = 1 << 18
_MAX_ERROR_BYTES: Final = 64 << 10
_REAP_S: Final = 10.0


@asynccontextmanager
async def confined(module: str, prefix: str) -> AsyncIterator[Process]:
    """A process in `module`'s `main`, in a session and an empty directory of its own; all is gone at the end.

    The job goes in by `send`; the limits are what `core.validation.child.confine` sets from within.
    """
    directory = await asyncio.to_thread(tempfile.mkdtemp, prefix=prefix)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _START.format(module), str(_PROJECT)),
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


async def send(process: Process, job: bytes) -> None:
    """Write the job and close the way in; a process that is gone already is no error."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(job)
        await process.stdin.drain()
    process.stdin.close()


async def drain(process: Process, errors: bytearray) -> None:
    """Keep the last of what is said on stderr, and never let it block the process."""
    assert process.stderr is not None
    while chunk := await process.stderr.read(1 << 14):
        errors += chunk
        del errors[:-_MAX_ERROR_BYTES]


def kill(process: Process) -> None:
    """Kill the whole session; no error when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end(process: Process) -> None:
    kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_S):
            await process.wait()


def _environment(directory: str) -> dict[str, str]:
    # Threads of numeric libraries take address space, which is capped, and are not needed.
    return {
        "LANG": "C.UTF-8",
        "TMPDIR": directory,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "ORT_DISABLE_TELEMETRY": "1",
    }
