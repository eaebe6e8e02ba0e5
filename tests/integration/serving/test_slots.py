"""Slots of a real runner follow the load: on a gated engine that tells what it was asked, and on ONNX Runtime."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import Engine, EngineOptions, Tensors
from core.engines.onnx import OnnxEngine
from core.serving.run_result import RunResult
from core.serving.runner import LocalRunner, RunnerOptions
from core.serving.slot_policy import SURELY_LONG_S
from core.signature import Signature
from tests.integration.hosts.hosting import GatedEngine, signature, until
from tests.unit.engines.models import big

pytestmark = pytest.mark.anyio
X = {"x": np.ones((1, 1), np.float32)}


class WideEngine(GatedEngine):
    """Notes the threads of each run, and how many ran side by side at most."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    def run_wide(self, inputs: Tensors, threads: int) -> dict[str, np.ndarray[Any, Any]]:
        """As `run`, for so long that it is worth dividing the cores."""
        with self._lock:
            self.threads.append(threads)
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            return self.run(inputs)
        finally:
            with self._lock:
                self.inside -= 1

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Not shorter than what is worth a slot."""
        time.sleep(2 * SURELY_LONG_S)
        return super().run(inputs)


@asynccontextmanager
async def running(make: Callable[[], tuple[Engine, Signature]], **options: Any) -> AsyncIterator[LocalRunner]:
    runner = LocalRunner(RunnerOptions("slots", **{"max_batch": 1, **options}), make)
    try:
        await runner.start(lambda state: None)
        yield runner
    finally:
        await runner.close()


@asynccontextmanager
async def gated(**options: Any) -> AsyncIterator[tuple[LocalRunner, WideEngine]]:
    engine = WideEngine()
    engine.gate.set()
    async with running(lambda: (engine, signature()), **options) as runner:
        engine.gate.clear()
        engine.threads.clear()
        engine.most = 0
        yield runner, engine
        engine.gate.set()


def ask(runner: LocalRunner, x: Tensors = X, items: int = 1) -> asyncio.Task[RunResult]:
    runner.admit(items)
    return asyncio.create_task(runner.run(x, items, priority=5, deadline=time.monotonic() + 20))


async def busy(runner: LocalRunner, engine: WideEngine, count: int) -> None:
    """Wait until so many batches have been handed over, and their threads are in the engine."""
    async with asyncio.timeout(10):
        while (await runner.stats()).busy != count or engine.inside != count:
            await asyncio.sleep(0.002)


async def test_one_alone_gets_all_cores_many_get_one_each_and_then_all_again() -> None:
    async with gated(max_instances=4, cores=4) as (runner, engine):
        calm = await runner.stats()
        first = ask(runner)
        await busy(runner, engine, 1)
        assert engine.threads == [4]
        rest = [ask(runner) for _ in range(11)]
        await busy(runner, engine, 4)
        full = await runner.stats()
        assert engine.threads[1:] == [1, 1, 1]
        engine.gate.set()
        await asyncio.gather(first, *rest)
        assert engine.most == 4
        await ask(runner)
        assert engine.threads[-1] == 4
        last = await runner.stats()
    assert [(stats.slots, stats.max_slots) for stats in (calm, full, last)] == [(1, 4), (4, 4), (1, 4)]
    assert sum(last.batch_threads.values()) == 13
    assert last.batch_threads[4] >= 2


async def test_slots_in_between_share_what_threads_are_left() -> None:
    async with gated(max_instances=4, cores=4) as (runner, engine):
        tasks = []
        for count in (1, 2, 3):
            tasks.append(ask(runner))
            await busy(runner, engine, count)
        assert engine.threads == [4, 3, 2]
        engine.gate.set()
        await asyncio.gather(*tasks)


async def test_one_request_of_many_items_is_alone() -> None:
    async with gated(max_instances=4, cores=4) as (runner, engine):
        task = ask(runner, {"x": np.ones((8, 1), np.float32)}, 8)
        await busy(runner, engine, 1)
        assert (await runner.stats()).slots == 1
        engine.gate.set()
        assert len((await task).outputs["y"]) == 8
        assert set(engine.threads) == {4}


async def test_what_fits_the_next_batch_waits_for_it() -> None:
    async with gated(max_instances=4, cores=4, max_batch=8) as (runner, engine):
        runner._costs.usual = runner._costs.limit = 8
        tasks = [ask(runner)]
        await busy(runner, engine, 1)
        tasks += [ask(runner) for _ in range(6)]
        await until("six waiting", lambda: runner._queue.waiting == 6)
        assert (await runner.stats()).busy == 1
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert (await runner.stats()).batch_sizes == {1: 1, 6: 1}


async def test_bounds_hold() -> None:
    async with gated(instances=2, max_instances=3, cores=8) as (runner, engine):
        assert (await runner.stats()).slots == 2
        tasks = [ask(runner)]
        await busy(runner, engine, 1)
        assert engine.threads == [7]
        tasks += [ask(runner) for _ in range(9)]
        await busy(runner, engine, 3)
        assert engine.most == 3
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert engine.most == 3


def family(runner: LocalRunner, count: int) -> list[asyncio.Task[RunResult]]:
    runner.admit(count)
    ask = [runner.run(X, 1, priority=5, deadline=time.monotonic() + 20, sibling=True) for _ in range(count)]
    return [asyncio.create_task(one) for one in ask]


def item_s(runner: LocalRunner) -> dict[Any, float]:
    assert runner._batcher is not None
    assert runner._batcher._sibling_slots is not None
    return runner._batcher._sibling_slots._item_s


async def test_siblings_run_together_then_side_by_side_and_then_as_took_less() -> None:
    async with gated(max_instances=2, cores=2, max_batch=16) as (runner, engine):
        tasks = family(runner, 10)
        await busy(runner, engine, 1)
        assert engine.threads == [2]
        engine.gate.set()
        await asyncio.gather(*tasks)
        engine.gate.clear()
        engine.threads.clear()
        tasks = family(runner, 10)
        await busy(runner, engine, 2)
        assert engine.threads == [1, 1]
        engine.gate.set()
        await asyncio.gather(*tasks)
        learned = item_s(runner)
        assert len(learned) == 2
        learned.update({way: 2.0 if way.side_by_side else 1.0 for way in learned})
        engine.threads.clear()
        await asyncio.gather(*family(runner, 10))
        assert set(engine.threads) == {2}
        sizes = (await runner.stats()).batch_sizes
    assert sizes == {10: 2, 5: 1, 3: 1, 1: 2}


async def test_siblings_beside_others_are_nobody_special() -> None:
    async with gated(max_instances=2, cores=2, max_batch=1) as (runner, engine):
        first = ask(runner)
        await busy(runner, engine, 1)
        tasks = [*family(runner, 4), ask(runner)]
        await busy(runner, engine, 2)
        assert engine.threads == [2, 1]
        engine.gate.set()
        await asyncio.gather(first, *tasks)
        assert not item_s(runner)  # nothing was learned of them


async def test_an_engine_that_runs_one_at_a_time_stays_one_a_slot() -> None:
    made = []

    class Lonely(WideEngine):
        concurrent = False

    def make() -> tuple[Engine, Signature]:
        engine = Lonely()
        engine.gate.set()
        made.append(engine)
        return engine, signature()

    async with running(make, instances=2, max_instances=4, cores=4) as runner:
        await asyncio.gather(*(ask(runner) for _ in range(12)))
        assert (await runner.stats()).max_slots == 2
    assert len(made) == 2
    assert {engine.most for engine in made} <= {0, 1}


async def test_onnx_runtime_widens_and_comes_back(tmp_path: Path) -> None:
    path = big(tmp_path, 64)

    def load() -> tuple[Engine, Signature]:
        engine = OnnxEngine()
        return engine, engine.load(path, EngineOptions(widths=(2, 1)))

    x = {"x": np.ones((1, 1024), np.float32)}
    async with running(load, max_instances=2, cores=2) as runner:
        await ask(runner, x)
        assert (await runner.stats()).batch_threads == {2: 1}
        await asyncio.gather(*(ask(runner, x) for _ in range(16)))
        burst = (await runner.stats()).batch_threads
        assert burst[1] >= 14
        await ask(runner, x)
        last = await runner.stats()
    assert last.batch_threads == {**burst, 2: burst[2] + 1}
    assert last.slots == 1
