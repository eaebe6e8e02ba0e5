"""The process that tries an uploaded model: it gives up what it can, then loads the libraries and the model.

Talks in lines of JSON: a job on stdin; on stdout `{"begin": check}`, `{"row": {check, ok, detail, ms}}`, and
at the end `{"end": {signature, latency_ms, peak_memory_bytes}}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_FILE_BYTES: Final = 1 << 20
_MAX_OPEN_FILES: Final = 256

Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run one job; every limit is in place before anything of the model is touched."""
    job = json.loads(sys.stdin.buffer.read())
    confine(int(job["memory_bytes"]), int(job["cpu_s"]), int(job["parent"]), gpu=bool(job["gpu"]))
    emit = report_channel()

    from core.validation.checks import run_checks  # loads NumPy, onnx and the engine: only within the limits

    run_checks(job, emit)


def confine(
    memory_bytes: int, cpu_s: int, parent: int, file_bytes: int = _MAX_FILE_BYTES, *, gpu: bool = False
) -> None:
    """Cap memory, CPU time and files, take away new privileges, and die with the server.

    For a `gpu`, what can be written to is capped instead of the address space: CUDA reserves addresses for all
    the memory of the machine and its GPUs, and does not start without them.
    """
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_DATA if gpu else resource.RLIMIT_AS, memory_bytes, memory_bytes)
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    _limit(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    _limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES, _MAX_OPEN_FILES)
    # Python turns SIGXFSZ into an error of its own accord; SIGXCPU must keep its deadly default.
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # the server ended before it could take this process with it
        sys.exit(1)


def _limit(kind: int, soft: int, hard: int) -> None:
    # A limit that is already lower may not be raised again, and need not be.
    with contextlib.suppress(OSError, ValueError):
        _, ceiling = resource.getrlimit(kind)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def report_channel() -> Emit:
    """Keep stdout for the report alone: what libraries print goes to stderr."""
    channel = os.dup(1)
    os.dup2(2, 1)

    def emit(message: dict[str, Any]) -> None:
        rest = memoryview(json.dumps(message, allow_nan=False).encode() + b"\n")
        while rest:
            rest = rest[os.write(channel, rest) :]

    return emit
