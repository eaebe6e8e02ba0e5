"""The end of a process: in order, and by force where that takes too long."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

import structlog

log = structlog.get_logger(__name__)
T = TypeVar("T")

MARGIN_S: Final = 15.0
"""What a stop may take beyond `server.drain_s`. A batch that runs when its model is closed may have 10 s of it."""
LAST_WORDS_S: Final = 2.0
"""So long it may take to tell what was still running."""
OVERDUE: Final = 1
INTERRUPTED: Final = 130
_TOLD, _CALLERS = 40, 3

_STDERR: Final = 2

_left_open: list[object] = []


def run_to_end(main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> T:
    """Run what closes all it has opened, for a process that ends afterwards by `end_now`.

    The event loop is left open: its own close waits for threads that come to no end, and uvloop's for handles of
    child processes that are long reaped, now and then for ever.
    """
    runner = asyncio.Runner(loop_factory=loop_factory)
    try:
        result = runner.run(main)
    except BaseException:
        runner.close()
        raise
    _left_open.append(runner)
    return result


def end_now(code: int = 0) -> NoReturn:
    """End the process, everything having been closed in order, without taking the interpreter down first.

    An engine's thread that comes back from a run meanwhile would find no interpreter, and the C++ library around
    it would abort the process.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def end_within(seconds: float, loop: asyncio.AbstractEventLoop) -> None:
    """End the process by force if it is still there after so long, and log what held it up.

    It may be called by a handler of signals: what begins the thread takes no lock that the code it interrupts
    could hold. Where the interpreter itself is stuck, a watch that needs none prints the threads and ends it.
    """
    _thread.start_new_thread(_end_by_force, (seconds, loop))
    faulthandler.dump_traceback_later(seconds + LAST_WORDS_S, exit=True, file=_STDERR)


def _end_by_force(seconds: float, loop: asyncio.AbstractEventLoop) -> None:
    time.sleep(seconds)
    log.critical("server.stop_overdue", after_s=seconds, tasks=tasks_of(loop), threads=threads())
    end_now(OVERDUE)


def tasks_of(loop: asyncio.AbstractEventLoop) -> list[str]:
    """The tasks of an event loop, each with the line that it waits at. From any thread."""
    tasks = list(asyncio.all_tasks(loop))[:_TOLD]
    return [f"{task.get_name()}: {_place([*_frames(task.get_coro())][:-_CALLERS:-1])}" for task in tasks]


def threads() -> list[str]:
    """The threads of this process but for the one that asks, each with the lines that it is at."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    return [
        f"{names.get(number, number)}: {_place(_stack(frame))}"
        for number, frame in sys._current_frames().items()
        if number != own
    ][:_TOLD]


def _frames(awaited: Any) -> Iterator[FrameType]:
    """From a coroutine to the innermost that it waits for."""
    while awaited is not None:
        for frame, inner in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if getattr(awaited, frame, None) is not None:
                yield getattr(awaited, frame)
                awaited = getattr(awaited, inner)
                break
        else:
            return


def _stack(frame: FrameType) -> list[FrameType]:
    """The frame with its callers, a few of them."""
    found: list[FrameType] = []
    inner: FrameType | None = frame
    while inner is not None and len(found) < _CALLERS:
        found.append(inner)
        inner = inner.f_back
    return found


def _place(frames: list[FrameType]) -> str:
    return " < ".join(
        f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_qualname}"
        for frame in frames
    )
