"""Small batches on the event loop, everything else in the slot's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.errors import RunFailed
from core.serving.engine_worker import INLINE_MOST_S
from core.serving.runner import LocalRunner, RunnerOptions
from core.signature import Signature, TensorSpec


class Recorder(Engine):
    """Doubles; notes the thread and the items of each run, in which `pause_s` is slept."""

    name = "recorder"
    formats = ()
    concurrent = True
    bounded = True

    def __init__(self, shape: tuple[int, ...] = (-1, 3)) -> None:
        self.signature = Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),))
        self.runs: list[tuple[str, int]] = []
        self.pause_s = 0.0

    @classmethod
    def info(cls) -> EngineInfo:
        return EngineInfo(cls.name, available=True)

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        return self.signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        self.runs.append((threading.current_thread().name, len(inputs["x"])))
        if self.pause_s:
            time.sleep(self.pause_s)
        if np.isnan(inputs["x"]).any():
            raise RunFailed("not a number")
        return {"y": inputs["x"] * 2}

    def memory(self) -> int:
        return 0

    def close(self) -> None:
        pass


HERE = threading.main_thread().name
ONE = {"x": np.ones((1, 3), np.float32)}


async def started(engine: Recorder, max_batch: int = 8) -> LocalRunner:
    runner = LocalRunner(RunnerOptions("m", max_batch=max_batch), lambda: (engine, engine.signature))
    await runner.start(lambda state: None)
    engine.runs.clear()
    return runner


async def ask(runner: LocalRunner, inputs: dict[str, Any] = ONE) -> Any:
    items = len(inputs["x"])
    runner.admit(items)
    return await runner.run(inputs, items, priority=1, deadline=time.monotonic() + 10)


def test_a_short_batch_runs_on_the_loop_and_those_that_come_together_run_together() -> None:
    engine = Recorder()

    async def scenario() -> None:
        runner = await started(engine)
        result = await ask(runner)
        assert result.outputs["y"].tolist() == [[2, 2, 2]]
        assert engine.runs == [(HERE, 1)]
        await asyncio.gather(*(ask(runner) for _ in range(5)))
        assert engine.runs[1:] == [(HERE, 5)]
        await runner.close()

    asyncio.run(scenario())


def test_what_is_larger_or_not_bounded_or_not_fixed_runs_in_the_thread() -> None:
    async def thread_of(engine: Recorder, inputs: dict[str, Any]) -> str:
        runner = await started(engine)
        await ask(runner, inputs)
        await runner.close()
        return engine.runs[0][0]

    unbounded = Recorder()
    unbounded.bounded = False
    nine = {"x": np.ones((9, 3), np.float32)}  # in parts of 8, so more than one run
    assert asyncio.run(thread_of(Recorder(), ONE)) == HERE
    assert asyncio.run(thread_of(Recorder(), nine)) == "m-0"
    assert asyncio.run(thread_of(unbounded, ONE)) == "m-0"
    assert asyncio.run(thread_of(Recorder((-1, -1)), ONE)) == "m-0"


def test_an_item_that_fails_is_the_only_one() -> None:
    engine = Recorder()

    async def scenario() -> None:
        runner = await started(engine)
        bad = {"x": np.full((1, 3), np.nan, np.float32)}
        results = await asyncio.gather(ask(runner), ask(runner, bad), ask(runner), return_exceptions=True)
        assert isinstance(results[1], RunFailed)
        assert [r.outputs["y"].tolist() for r in (results[0], results[2])] == [[[2, 2, 2]]] * 2
        await runner.close()

    asyncio.run(scenario())


def test_others_get_their_turn_between_batches() -> None:
    engine = Recorder()

    async def scenario() -> None:
        runner = await started(engine, max_batch=1)
        seen: list[int] = []

        async def other() -> None:
            for _ in range(20):
                seen.append(len(engine.runs))
                await asyncio.sleep(0)

        await asyncio.gather(other(), *(ask(runner) for _ in range(10)))
        assert len(engine.runs) == 10
        assert len(set(seen)) > 5, "the batches ran one after the other without a turn of the loop"
        await runner.close()

    asyncio.run(scenario())


def test_one_that_turns_out_to_be_slow_is_the_last_on_the_loop() -> None:
    engine = Recorder()

    async def scenario() -> None:
        runner = await started(engine)
        engine.pause_s = INLINE_MOST_S * 1.5
        await ask(runner)
        engine.pause_s = 0
        await ask(runner)
        assert [thread for thread, _ in engine.runs] == [HERE, "m-0"]
        await runner.close()

    asyncio.run(scenario())
