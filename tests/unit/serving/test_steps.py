"""Answers of several runs, and streams: over a real queue, batcher and slot, with an engine that doubles."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.errors import DeadlineExceeded, InvalidInput, QueueFull, RunFailed, ShuttingDown
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.request import InferenceRequest
from core.serving.runner import LocalRunner, RunnerOptions
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.stepped import SteppedTask, Steps
from core.tasks.streams import Answers, StreamedTask, TaskStream


def _work(seconds: float = 0.001) -> None:
    """What a run costs whatever its size: with less, chance would say what size of batches is worth taking."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Doubler(Engine):
    name = "doubler"
    formats = ()
    concurrent = True

    def __init__(self) -> None:
        self.signature = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    @classmethod
    def info(cls) -> EngineInfo:
        return EngineInfo(cls.name, available=True)

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        return self.signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        self.gate.wait(10)
        _work()
        self.batches.append(len(inputs["x"]))
        if np.isnan(inputs["x"]).any():
            raise RunFailed("Not a number.")
        return {"y": inputs["x"] * 2}

    def memory(self) -> int:
        return 0

    def close(self) -> None:
        pass


def x(value: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[value]], np.float32)}


class Powers(SteppedTask, StreamedTask):
    """Doubles 1 as many times as the payload says; the streams double the sum of what was fed."""

    name = "powers"
    modality = "tensor"
    closed = 0

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        pass

    def __init__(self, *args: Any) -> None:
        pass

    def steps(self, payload: Payload, parameters: Mapping[str, Any]) -> Steps:
        times = int(payload.data)
        if times < 0:
            raise InvalidInput("It must be 0 or more.")
        value = float(parameters.get("from", 1))
        try:
            for _ in range(times):
                value = float((yield x(value))["y"][0, 0])
        finally:
            Powers.closed += 1
        return {"value": value}

    def open_stream(self, parameters: Mapping[str, Any]) -> TaskStream:
        return Sum()


class Sum(TaskStream):
    total = 0.0

    def feed(self, chunk: bytes) -> Answers:
        self.total += float(chunk)
        outputs = yield x(self.total)
        return [{"partial": float(outputs["y"][0, 0])}]

    def finish(self) -> Answers:
        return [{"value": self.total}]
        yield x(0)


@asynccontextmanager
async def serving(engine: Doubler, timeout_ms: int = 10_000, **options: Any) -> AsyncIterator[Deployment]:
    runner = LocalRunner(RunnerOptions("m", **options), lambda: (engine, engine.signature))
    with ThreadPoolExecutor(4) as threads:
        deployment = Deployment(DeploymentOptions("m", 1, timeout_ms), runner, Powers, threads)
        await deployment.start()
        engine.batches.clear()
        try:
            yield deployment
        finally:
            engine.gate.set()
            await deployment.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def asking(*times: int, **parameters: Any) -> InferenceRequest:
    return InferenceRequest([Payload(str(each).encode()) for each in times], parameters=parameters)


def test_each_run_is_made_of_what_the_last_one_gave() -> None:
    async def scenario() -> None:
        engine = Doubler()
        async with serving(engine) as deployment:
            result = await deployment.infer(asking(5))
            assert result.answers == [{"value": 32.0}]
            assert engine.batches == [1] * 5
            assert result.timing.infer > 0
            assert (await deployment.infer(asking(0))).answers == [{"value": 1.0}]
            assert (await deployment.stats()).depth == 0

    run(scenario)


def test_items_of_one_request_run_side_by_side_and_share_batches() -> None:
    async def scenario() -> None:
        engine = Doubler()
        async with serving(engine, instances=1) as deployment:
            engine.gate.clear()
            blocker = asyncio.create_task(deployment.infer(asking(1)))
            while not (await deployment.stats()).busy:
                await asyncio.sleep(0.001)
            call = asyncio.create_task(deployment.infer(asking(1, 2, 3)))
            assert isinstance(deployment.runner, LocalRunner)
            while deployment.runner._queue.waiting < 3:
                await asyncio.sleep(0.001)
            engine.gate.set()
            await blocker
            assert (await call).answers == [{"value": 2.0}, {"value": 4.0}, {"value": 8.0}]
            assert max(engine.batches) == 3

    run(scenario)


@pytest.mark.parametrize("times", [(-1,), (3, -1, 2)])
def test_one_that_fails_ends_the_others_and_gives_its_room_back(times: tuple[int, ...]) -> None:
    async def scenario() -> None:
        async with serving(Doubler()) as deployment:
            with pytest.raises(InvalidInput, match="0 or more"):
                await deployment.infer(asking(*times))
            with pytest.raises(RunFailed):
                await deployment.infer(asking(1, **{"from": "nan"}))
            with pytest.raises(InvalidInput, match="no raw outputs"):
                await deployment.infer(InferenceRequest([Payload(b"1")], raw=True))
            assert (await deployment.stats()).depth == 0

    run(scenario)


def test_a_caller_that_leaves_ends_its_steps() -> None:
    async def scenario() -> None:
        engine = Doubler()
        async with serving(engine) as deployment:
            gc.collect()  # ends what failed calls of other tests have left in their tracebacks
            Powers.closed = 0
            engine.gate.clear()
            call = asyncio.create_task(deployment.infer(asking(1000)))
            while not (await deployment.stats()).busy:
                await asyncio.sleep(0.001)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            del call
            engine.gate.set()
            assert (await deployment.infer(asking(1))).answers == [{"value": 2.0}]
            assert len(engine.batches) <= 2
            assert Powers.closed == 2
            assert (await deployment.stats()).depth == 0

    run(scenario)


def test_a_caller_that_leaves_before_its_items_have_begun_gives_their_room_back() -> None:
    async def scenario() -> None:
        async with serving(Doubler()) as deployment:
            call = asyncio.create_task(deployment.infer(asking(1, 2, 3)))
            await asyncio.sleep(0)
            assert (await deployment.stats()).depth == 3
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert (await deployment.stats()).depth == 0

    run(scenario)


def test_a_full_queue_refuses_at_the_door_and_never_halfway() -> None:
    async def scenario() -> None:
        engine = Doubler()
        async with serving(engine, instances=1, max_batch=1, queue_size=2) as deployment:
            halfway = asyncio.create_task(deployment.infer(asking(4)))
            while not engine.batches:
                await asyncio.sleep(0)
            engine.gate.clear()
            others = [asyncio.create_task(deployment.infer(asking(1))) for _ in range(8)]
            await asyncio.sleep(0.05)
            engine.gate.set()
            assert (await halfway).answers == [{"value": 16.0}]
            outcomes = await asyncio.gather(*others, return_exceptions=True)
            assert any(isinstance(outcome, QueueFull) for outcome in outcomes)
            assert (await deployment.stats()).depth == 0

    run(scenario)


def test_the_deadline_is_that_of_all_steps_together() -> None:
    async def scenario() -> None:
        engine = Doubler()
        async with serving(engine) as deployment:
            request = asking(10**6, **{"from": 0})
            request.deadline = time.monotonic() + 0.3
            with pytest.raises(DeadlineExceeded):
                await deployment.infer(request)

    run(scenario)


def test_a_stream_answers_piece_by_piece() -> None:
    async def scenario() -> None:
        async with serving(Doubler()) as deployment:
            assert deployment.listens
            stream = deployment.open_stream({})
            assert await stream.feed(b"1") == [{"partial": 2.0}]
            assert await stream.feed(b"2") == [{"partial": 6.0}]
            assert await stream.finish() == [{"value": 3.0}]
            with pytest.raises(InvalidInput, match="has ended"):
                await stream.feed(b"1")
            broken = deployment.open_stream({})
            with pytest.raises(RunFailed):
                await broken.feed(b"nan")
            with pytest.raises(InvalidInput, match="has ended"):
                await broken.feed(b"1")
            left = deployment.open_stream({})
            await deployment.close()
            with pytest.raises(ShuttingDown):
                await left.feed(b"1")
            with pytest.raises(ShuttingDown):
                deployment.open_stream({})

    run(scenario)
