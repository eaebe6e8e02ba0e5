from __future__ import annotations

import asyncio
import os
import threading

import pytest

from core.serving.low_priority import NICENESS, run_at_low_priority


def test_it_runs_in_a_thread_of_its_own_at_low_priority() -> None:
    def look() -> tuple[str, int]:
        thread = threading.current_thread()
        return thread.name, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    name, niceness = asyncio.run(run_at_low_priority(look, "measure"))
    assert name == "measure"
    assert niceness == max(NICENESS, ours)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours, "it is the thread's alone"


def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(run_at_low_priority(fail, "fail"))


def test_a_caller_that_leaves_is_not_waited_for() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        done.set()

    async def scenario() -> None:
        task = asyncio.create_task(run_at_low_priority(work, "work"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert not done.is_set()
    go.set()
    assert done.wait(10)
