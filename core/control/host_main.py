"""The program of an engine host: load one model, serve it on a Unix socket, end with the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from core.engines.base import Engine, EngineOptions
from core.engines.heap import passing_blocks
from core.engines.registry import engine_class
from core.errors import PlatformError
from core.logs import log_at
from core.serving.host import HostServer, wait_for_parent
from core.serving.runner import LocalRunner, RunnerOptions
from core.serving.sequences import SequenceLimits
from core.serving.warm_up import unpack_inputs
from core.signature import Signature

_PR_SET_PDEATHSIG = 1
HUNG = 70
"""Exit code of a host whose engine did not come back: only the end of the process frees such a slot."""
BROKEN = 1
"""Exit code of a host that ended by an error of its own; the last line of its log names it."""

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Read the job from standard input and serve it until the parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Requests are answered until the parent says that there are no more, whoever else is sent these signals.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    say = own_stdout()
    job = orjson.loads(sys.stdin.buffer.readline())
    threading.Thread(target=wait_for_parent, name="parent watch", daemon=True).start()
    log_at("warning")
    sys.setswitchinterval(0.001)
    try:
        import uvloop

        uvloop.run(serve(job, say))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(BROKEN)
    os._exit(0)


async def serve(job: dict[str, Any], say: Say) -> None:
    """Load and serve; says each state to the parent."""
    sequences = SequenceLimits(**job.get("sequences", {}))
    runner = LocalRunner(
        RunnerOptions(**job["options"]),
        lambda: make_engine(job),
        sequences,
        lambda signature: unpack_inputs(job.get("example")),
    )
    server = HostServer(runner, Path(job["socket"]))
    runner.on_hung = lambda: os._exit(HUNG)
    try:
        with passing_blocks():
            await runner.start(lambda state: say({"state": state}))
    except PlatformError as error:
        say({"state": "failed", "message": error.message})
        return
    listener = server.listen()
    say({"state": "ready"})
    await server.serve(listener)


def make_engine(job: dict[str, Any]) -> tuple[Engine, Signature]:
    """Load the job's engine."""
    engine = engine_class(job["engine"])()
    try:
        return engine, engine.load(Path(job["artifact"]), EngineOptions(**job["engine_options"]))
    except BaseException:
        engine.close()
        raise


def own_stdout() -> Say:
    """Keep standard output for what the parent is told; what libraries print there goes to the log instead."""
    words = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        words.write(orjson.dumps(line) + b"\n")

    return say
