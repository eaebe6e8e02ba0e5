"""Calls of one turn of the event loop, in real threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.serving.gathering import MOST, WORTH_S, Gathering

pytestmark = pytest.mark.anyio
SOON_S = 30.0


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def test_what_is_called_in_one_turn_is_answered_in_one_turn(threads: ThreadPoolExecutor) -> None:
    gathering, answered = Gathering(threads), []
    turn = 0

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def call(number: int) -> None:
        assert await gathering.call(lambda: number * number) == number * number
        answered.append((turn, number))

    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*(call(number) for number in range(10)))
    counting.cancel()
    assert [number for _, number in answered] == list(range(10))
    assert len({when for when, _ in answered}) == 1


async def test_what_is_done_at_once_is_not_worth_a_second_thread_and_what_takes_long_is(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    gathering = Gathering(threads)
    both = threading.Barrier(2)

    def quick() -> int:
        return threading.get_ident()

    def long() -> bool:
        until = time.thread_time() + 2 * WORTH_S
        while time.thread_time() < until:
            pass
        return both.wait(SOON_S) >= 0

    async def four(function: Callable[[], Any]) -> list[Any]:
        return list(await asyncio.gather(*(gathering.call(function) for _ in range(4))))

    await four(quick)
    assert len(set(await four(quick))) == 1
    assert await four(long) == [True] * 4  # nothing is known yet
    assert await four(long) == [True] * 4


async def test_an_error_is_its_own_calls_alone(threads: ThreadPoolExecutor) -> None:
    gathering = Gathering(threads)

    def fail() -> int:
        raise ValueError("odd")

    answers = await asyncio.gather(
        *(gathering.call(fail if number % 2 else (lambda: 1)) for number in range(6)), return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["1", "odd"] * 3


async def test_a_call_whose_caller_left_is_not_begun_and_holds_up_nobody(threads: ThreadPoolExecutor) -> None:
    gathering, begun = Gathering(threads), []
    hold = threading.Event()
    for _ in range(2):
        threads.submit(hold.wait, SOON_S)
    calls = [asyncio.create_task(gathering.call(begun.append, number)) for number in range(4)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.sleep(0)
    hold.set()
    await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), SOON_S)
    assert sorted(begun) == [0, 2, 3]


async def test_of_many_calls_the_first_need_not_wait_for_the_last(threads: ThreadPoolExecutor) -> None:
    gathering, first_ones_are_back = Gathering(threads), threading.Event()

    def last() -> bool:
        return first_ones_are_back.wait(SOON_S)

    calls = [asyncio.create_task(gathering.call(int)) for _ in range(MOST)]
    late = asyncio.create_task(gathering.call(last))
    await asyncio.wait_for(asyncio.gather(*calls), SOON_S)
    first_ones_are_back.set()
    assert await late


async def test_a_long_call_leaves_the_others_to_the_other_threads_and_all_are_answered_with_it(
    threads: ThreadPoolExecutor,
) -> None:
    gathering, go_on = Gathering(threads), threading.Event()
    done: list[int] = []
    gathering._cores = 2  # as many as the pool has, on whatever machine this runs
    calls = [asyncio.create_task(gathering.call(go_on.wait, SOON_S))]
    calls += [asyncio.create_task(gathering.call(done.append, number)) for number in range(9)]
    async with asyncio.timeout(SOON_S):
        while len(done) < 9:
            await asyncio.sleep(0)
        for _ in range(1000):  # in which the thread that is done would be heard of
            await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    go_on.set()
    assert await asyncio.gather(*calls) == [True, *[None] * 9]
