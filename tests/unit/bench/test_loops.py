"""The loops, with calls whose time is known."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from itertools import pairwise

import pytest

from app.bench import loops, thread_loops
from app.bench.measure import auto_rates
from app.bench.schedule import poisson_arrivals
from core.errors import QueueFull
from tests.unit.bench.points import point


def test_arrivals_are_those_of_the_seed_in_order_and_as_many_as_the_rate_says() -> None:
    due = poisson_arrivals(1000, 5, seed=7)
    assert due == poisson_arrivals(1000, 5, seed=7)
    assert due != poisson_arrivals(1000, 5, seed=8)
    assert due == sorted(due)
    assert due[0] >= 0
    assert due[-1] < 5
    assert len(due) == pytest.approx(5000, rel=0.05)
    gaps = [b - a for a, b in pairwise(due)]
    assert sum(gap > 0.001 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # exponential: 1/e


def test_a_slow_rate_may_have_no_arrival() -> None:
    assert poisson_arrivals(0.01, 0.1, seed=7) == []


def test_closed_loop_keeps_so_many_under_way() -> None:
    busy = most = 0

    async def ask() -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.005)
        busy -= 1

    samples = asyncio.run(loops.closed_loop([ask] * 3, 0.1))
    assert most == 3
    assert samples.elapsed_s >= 0.1
    assert min(samples.took_ms) >= 4.5


def test_refusals_are_counted_and_not_timed() -> None:
    async def refuse() -> None:
        raise QueueFull("full")

    samples = asyncio.run(loops.closed_loop([refuse], 0.05))
    assert samples.took_ms == []
    assert samples.errors["full"] > 1


def test_waiting_for_a_free_caller_counts() -> None:
    """One caller, ten calls due at once, 10 ms each: the last took 100 ms, however late it was sent."""
    samples = asyncio.run(loops.open_loop([partial(asyncio.sleep, 0.01)], [0.0] * 10, 0.3))
    assert len(samples.took_ms) == 10
    assert samples.took_ms == sorted(samples.took_ms)
    assert samples.took_ms[-1] >= 99
    assert samples.late_ms[-1] >= 88


def test_what_cannot_be_sent_is_counted_as_late() -> None:
    samples = asyncio.run(loops.open_loop([partial(asyncio.sleep, 0.25)], [0.0, 0.01, 0.02], 0.05))
    assert (len(samples.took_ms), len(samples.unsent_ms)) == (1, 2)
    assert min(samples.unsent_ms) >= 220


def test_an_open_loop_waits_for_what_is_due() -> None:
    began = time.perf_counter()
    samples = asyncio.run(loops.open_loop([partial(asyncio.sleep, 0)] * 4, [0.05, 0.1], 0.12))
    lasted_ms = (time.perf_counter() - began) * 1000
    assert lasted_ms >= 120
    assert len(samples.took_ms) == 2
    assert max(samples.took_ms) <= lasted_ms - 50, "neither of them counts the time before it was due"


def test_threads_in_closed_loop_call_side_by_side() -> None:
    lock, busy, most = threading.Lock(), 0, 0

    def call() -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        with lock:
            busy -= 1

    samples = asyncio.run(thread_loops.closed_loop(call, 3, 0.1))
    assert most == 3
    assert min(samples.took_ms) >= 5


def test_threads_in_open_loop_count_waiting() -> None:
    samples = asyncio.run(thread_loops.open_loop(partial(time.sleep, 0.01), 1, [0.0] * 10, 0.3))
    assert len(samples.took_ms) == 10
    assert max(samples.took_ms) >= 99


def test_threads_stop_when_nobody_waits_for_them() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.005)

    async def impatient() -> None:
        await asyncio.wait_for(thread_loops.closed_loop(call, 2, 60), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    before = calls
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bench caller")]
    assert calls == before


def test_rates_follow_the_slowest_layer() -> None:
    took = [1.0] * 1000
    points = [point("core", "closed", 1, *took), point("http", "closed", 1, *took[:100])]
    points += [point("http", "closed", 4, *took[:200])]
    assert auto_rates(points) == [100.0, 160.0]
    assert auto_rates([*points, point("engine", "closed", 1)]) == []
