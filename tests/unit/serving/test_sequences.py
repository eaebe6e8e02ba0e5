"""What is kept of sequences: one part at a time, bounded in number and age."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from core.errors import Conflict, DeadlineExceeded, RunFailed, ShuttingDown, Unavailable
from core.serving.request import SequencePart
from core.serving.sequences import Hold, SequenceLimits, Sequences


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def state(value: float) -> dict[str, np.ndarray]:
    return {"h": np.array([value])}


async def hold(sequences: Sequences, id_: str, *, start: bool = False, timeout_s: float = 5) -> Hold:
    return await sequences.hold(SequencePart(id_, start=start), time.monotonic() + timeout_s)


def test_what_a_part_keeps_is_there_for_the_next() -> None:
    async def scenario() -> None:
        sequences = Sequences()
        first = await hold(sequences, "a", start=True)
        assert first.state == {}
        first.keep(state(1))
        second = await hold(sequences, "a")
        assert second.state["h"].tolist() == [1]
        second.keep(state(2))
        failed = await hold(sequences, "a")
        failed.give_back()
        again = await hold(sequences, "a")
        assert again.state["h"].tolist() == [2]
        again.keep(None)
        with pytest.raises(Conflict, match="no such sequence"):
            await hold(sequences, "a")
        assert len(sequences) == 0

    run(scenario)


def test_a_start_begins_anew_and_one_that_fails_leaves_nothing() -> None:
    async def scenario() -> None:
        sequences = Sequences()
        (await hold(sequences, "a", start=True)).keep(state(1))
        anew = await hold(sequences, "a", start=True)
        assert anew.state == {}
        anew.give_back()
        kept = await hold(sequences, "a")
        assert kept.state["h"].tolist() == [1]
        kept.give_back()
        (await hold(sequences, "b", start=True)).give_back()
        with pytest.raises(Conflict):
            await hold(sequences, "b")

    run(scenario)


def test_parts_of_one_sequence_come_one_after_the_other_and_others_meanwhile() -> None:
    async def scenario() -> None:
        sequences = Sequences()
        first = await hold(sequences, "a", start=True)
        waiting = [asyncio.create_task(hold(sequences, "a")) for _ in range(3)]
        (await hold(sequences, "b", start=True)).keep(state(9))
        assert not any(task.done() for task in waiting)
        first.keep(state(0))
        for count, task in enumerate(waiting):
            held = await task
            assert held.state["h"].tolist() == [count]
            held.keep(state(count + 1))
        held = await hold(sequences, "a")
        with pytest.raises(DeadlineExceeded):
            await hold(sequences, "a", timeout_s=0.01)
        left = asyncio.create_task(hold(sequences, "a"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        held.keep(state(7))
        assert (await hold(sequences, "a")).state["h"].tolist() == [7]

    run(scenario)


def test_the_unused_are_dropped_and_the_number_is_bounded() -> None:
    async def scenario() -> None:
        now = [0.0]
        sequences = Sequences(SequenceLimits(most=2, idle_s=30), now=lambda: now[0])
        for id_ in "ab":
            (await hold(sequences, id_, start=True)).keep(state(1))
        with pytest.raises(Unavailable, match="2 sequences already"):
            await hold(sequences, "c", start=True)
        now[0] = 20
        (await hold(sequences, "a")).keep(state(2))
        now[0] = 31
        (await hold(sequences, "c", start=True)).keep(state(3))  # in the place of b
        with pytest.raises(Conflict, match="unused for 30 seconds"):
            await hold(sequences, "b")
        assert (await hold(sequences, "a")).state["h"].tolist() == [2]

    run(scenario)


def test_a_state_that_is_too_large_is_refused_and_the_old_one_stays() -> None:
    async def scenario() -> None:
        sequences = Sequences(SequenceLimits(state_bytes=1536))
        (await hold(sequences, "a", start=True)).keep(state(1))
        with pytest.raises(RunFailed, match=r"more than 1\.5 KB"):
            (await hold(sequences, "a")).keep({"h": np.zeros(1537, np.uint8)})
        assert (await hold(sequences, "a")).state["h"].tolist() == [1]

    run(scenario)


def test_closing_refuses_who_waits() -> None:
    async def scenario() -> None:
        sequences = Sequences()
        held = await hold(sequences, "a", start=True)
        waiting = asyncio.create_task(hold(sequences, "a"))
        await asyncio.sleep(0)
        sequences.close()
        with pytest.raises(ShuttingDown):
            await waiting
        held.keep(state(1))

    run(scenario)
