"""Work that must not take the processor from requests: in a thread of its own, at low priority."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

NICENESS = 10
"""Of 20: where there is nothing else to do it is as fast as ever, and beside a busy thread it gets a tenth."""


async def run_at_low_priority(function: Callable[[], T], name: str) -> T:
    """Run something that blocks. Once begun it goes on to its end, also when the caller is cancelled.

    Threads that it starts are as slow as itself, for ever: an engine must not be loaded in it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        # Linux gives each thread a niceness of its own (sched(7)); where it cannot be set, nothing is lost.
        with suppress(OSError, AttributeError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


async def in_own_thread(function: Callable[[], T], undo: Callable[[T], None], background: bool = False) -> T:
    """Run something slow in a thread of its own; when the caller is cancelled meanwhile, undo its result."""
    task = asyncio.ensure_future(
        run_at_low_priority(function, "load") if background else asyncio.to_thread(function)
    )
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else undo(done.result()))
        raise
