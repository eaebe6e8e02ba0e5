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
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future
