"""Items of different length, run by a runner in this process and by one behind a host's socket, alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DeadlineExceeded, QueueFull, RunFailed
from core.serving.run_result import EachResult
from core.serving.runner import Runner
from core.tasks.base import Padding, Prepared
from tests.integration.hosts.hosting import POISON, InProcess, free_bytes, hosted, until

PADDING = {"x": Padding(-1.0)}


def prepared(*lengths: int) -> Prepared:
    x = np.full((len(lengths), max(lengths)), -1, np.float32)
    for row, length in zip(x, lengths, strict=True):
        row[:length] = length
    return Prepared({"x": x}, [None] * len(lengths), lengths, PADDING)


async def each(runner: Runner, *lengths: int, timeout_s: float = 20, what: Prepared | None = None) -> EachResult:
    what = what or prepared(*lengths)
    runner.admit(len(what.contexts))
    return await runner.run_each(what, priority=5, deadline=time.monotonic() + timeout_s)


def right(result: EachResult, *lengths: int) -> bool:
    return len(result.outputs) == len(lengths) and all(
        output["y"].shape[0] == 1 and (output["y"][0, :length] == 2 * length).all()
        for output, length in zip(result.outputs, lengths, strict=True)
    )


@asynccontextmanager
async def both(place: InProcess, where: str) -> AsyncIterator[Runner]:
    async with place:
        learn_nothing(place)
        yield place.runner if where == "here" else await place.client()


def learn_nothing(place: InProcess) -> None:
    """Here the length alone decides, not what the gate makes batches cost."""
    assert place.runner._batcher is not None
    place.runner._batcher.token_costs.observe = lambda items, seconds: None  # type: ignore[method-assign]


@pytest.fixture(params=["here", "behind the socket"])
def where(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


def shapes(place: InProcess) -> list[tuple[int, ...]]:
    return [seen.shape for seen in place.engine.seen]


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def queued(place: InProcess, items: int) -> Callable[[], bool]:
    return lambda: place.runner._queue.waiting == items


def test_those_of_like_length_run_together(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        place = InProcess(tmp_path, max_batch=8)
        async with both(place, where) as runner:
            first = asyncio.create_task(each(runner, 3))
            await place.wait_running()
            lengths = (5, 200, 6, 190, 5)
            one = asyncio.create_task(each(runner, *lengths))
            await until("five wait", queued(place, 5))
            other = asyncio.create_task(each(runner, 210, 4))
            await until("seven wait", queued(place, 7))
            place.engine.gate.set()
            assert right(await first, 3)
            assert right(await one, *lengths)
            assert right(await other, 210, 4)
            assert shapes(place) == [(1, 3), (4, 6), (3, 210)]
            padded = place.engine.seen[1]
            assert sorted((row == -1).sum() for row in padded) == [0, 1, 1, 2]

    run(test)


def test_a_batch_stays_within_its_tokens(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        place = InProcess(tmp_path, max_batch=8, max_tokens=100)
        async with both(place, where) as runner:
            first = asyncio.create_task(each(runner, 300))
            await place.wait_running()
            rest = asyncio.create_task(each(runner, *[40] * 5))
            await until("five wait", queued(place, 5))
            place.engine.gate.set()
            assert right(await first, 300)
            assert right(await rest, *[40] * 5)
            assert shapes(place) == [(1, 300), (2, 40), (2, 40), (1, 40)]

    run(test)


def test_large_answers_come_back_and_their_memory_too(tmp_path: Path) -> None:
    async def test() -> None:
        place = InProcess(tmp_path, max_batch=4)
        async with place:
            client = await place.client()
            before = free_bytes(client)
            place.engine.gate.set()
            lengths = (50_000, 3, 40_000, 49_000)
            assert right(await each(client, *lengths), *lengths)
            assert right(await each(client, *lengths), *lengths)
            await until("the memory is free again", lambda: free_bytes(client) == before)

    run(test)


def test_more_items_than_the_queue_may_hold_enter_alone(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        place = InProcess(tmp_path, max_batch=2, queue_size=4)
        async with both(place, where) as runner:
            place.engine.gate.set()
            assert right(await each(runner, *range(1, 21)), *range(1, 21))
            place.engine.gate.clear()
            task = asyncio.create_task(each(runner, *range(1, 21)))
            await place.wait_running()
            with pytest.raises(QueueFull):
                await each(runner, 1)
            place.engine.gate.set()
            await task

    run(test)


def test_a_caller_that_leaves_takes_its_items_along(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        place = InProcess(tmp_path, max_batch=1)
        async with both(place, where) as runner:
            task = asyncio.create_task(each(runner, 4, 9, 30))
            await place.wait_running()
            await until("two wait", queued(place, 2))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until("none waits", queued(place, 0))
            place.engine.gate.set()
            assert right(await each(runner, 7), 7)
            assert shapes(place) == [(1, 4), (1, 7)]

    run(test)


def test_the_deadline_holds_for_all_items(tmp_path: Path, where: str) -> None:
    async def test() -> None:
        place = InProcess(tmp_path, max_batch=1)
        async with both(place, where) as runner:
            with pytest.raises(DeadlineExceeded):
                await each(runner, 4, 9, timeout_s=0.05)
            place.engine.gate.set()
            assert right(await each(runner, 7), 7)
            await until("none waits", queued(place, 0))

    run(test)


def _with(value: float, *lengths: int) -> Prepared:
    made = prepared(*lengths)
    made.inputs["x"][0, 0] = value
    return made


def test_an_item_that_fails_fails_its_request_alone(tmp_path: Path) -> None:
    async def test() -> None:
        fake = {"fail": "run", "fail_on": POISON}
        async with hosted(tmp_path, fake=fake, max_batch=8) as runner:
            bad, good = _with(POISON, 3, 3, 40), prepared(3, 41)
            outcomes = await asyncio.gather(
                each(runner, what=bad), each(runner, what=good), return_exceptions=True
            )
            assert isinstance(outcomes[0], RunFailed)
            assert isinstance(outcomes[1], EachResult)
            assert right(outcomes[1], 3, 41)

    run(test)


def test_an_item_that_crashes_its_host_is_refused_and_others_are_answered(tmp_path: Path) -> None:
    async def test() -> None:
        fake = {"fail": "crash", "fail_on": POISON}
        async with hosted(tmp_path, fake=fake, max_batch=8) as runner:
            what: Sequence[Prepared] = (_with(POISON, 3, 30), prepared(3, 31, 5))
            outcomes = await asyncio.gather(*[each(runner, what=one) for one in what], return_exceptions=True)
            assert isinstance(outcomes[0], RunFailed)
            assert "twice" in outcomes[0].message
            assert isinstance(outcomes[1], EachResult)
            assert right(outcomes[1], 3, 31, 5)

    run(test)
