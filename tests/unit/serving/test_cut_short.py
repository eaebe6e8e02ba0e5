"""How far requests came that were not answered, as their traces have it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from core.engines.base import Tensors
from core.errors import DeadlineExceeded, InvalidInput, RunFailed
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.request import InferenceRequest
from core.serving.runner import LocalRunner, RunnerOptions
from core.serving.trace import CANCELLED, Stage, Trace, current, new_id
from core.signature import Signature
from core.tasks.base import Payload, Prepared
from tests.unit.serving.test_inline import Recorder

ONE = {"x": np.ones((1, 3), np.float32)}
NONE = np.full((1, 3), np.nan, np.float32)


class Held(Recorder):
    """Runs until it is let go; a run of what is no number fails then."""

    bounded = False

    def __init__(self) -> None:
        super().__init__()
        self.running = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        self.running.set()
        assert self.let_go.wait(30)
        if np.isnan(inputs["x"]).any():
            raise RunFailed("not a number")
        return {"y": inputs["x"]}


class Fussy:
    """A task that fails where its payload says so."""

    name, modality = "fussy", "text"

    def preprocess(self, payloads: Any, parameters: Any) -> Prepared:
        if payloads[0].data == b"before":
            raise InvalidInput("Not that.")
        return Prepared({"x": NONE if payloads[0].data == b"within" else ONE["x"]}, [payloads[0].data])

    def postprocess(self, outputs: Any, contexts: Any, parameters: Any) -> list[dict[str, Any]]:
        if contexts[0] == b"after":
            raise ValueError("a mistake of the task's")
        return [{}]


def media(said: bytes) -> InferenceRequest:
    return InferenceRequest(payloads=[Payload(said, "text/plain")])


async def stages_of(call: Any) -> tuple[BaseException | None, list[Stage]]:
    """What became of a call that is traced, and its stages."""
    trace = Trace(new_id(), None, lambda trace, ended: None)
    current.set(trace)
    try:
        await call
    except BaseException as error:
        return error, trace.stages
    return None, trace.stages


def serve(scenario: Callable[[Held, Deployment], Any]) -> None:
    async def run() -> None:
        engine = Held()
        runner = LocalRunner(RunnerOptions("m", max_batch=1), lambda: (engine, engine.signature))
        with ThreadPoolExecutor(2) as threads:
            served = Deployment(DeploymentOptions("m", 3), runner, _fussy, threads)
            await served.start()
            try:
                await scenario(engine, served)
            finally:
                engine.let_go.set()
                await served.close()

    asyncio.run(run())


def _fussy(signature: Signature) -> Any:
    return Fussy()


@pytest.mark.parametrize(
    ("said", "names", "code"),
    [
        (b"before", ["preprocess"], "invalid_input"),
        (b"within", ["preprocess", "queue", "infer"], "run_failed"),
        (b"after", ["preprocess", "queue", "infer", "postprocess"], "internal"),
        (b"fine", ["preprocess", "queue", "infer", "postprocess"], ""),
    ],
)
def test_the_stages_before_a_failure_are_noted_and_the_failing_one_says_why(
    said: bytes, names: list[str], code: str
) -> None:
    async def scenario(engine: Held, served: Deployment) -> None:
        began = time.monotonic()
        error, stages = await asyncio.create_task(stages_of(served.infer(media(said))))
        assert bool(error) == bool(code)
        stages = [stage for stage in stages if stage.name != "batch_wait"]
        assert [stage.name for stage in stages] == names
        assert [stage.error for stage in stages] == [*[""] * (len(names) - 1), code]
        assert {(stage.model, stage.version) for stage in stages} == {("m", 3)}
        times = [began, *(time for stage in stages for time in (stage.since, stage.until)), time.monotonic()]
        assert times == sorted(times)

    serve(scenario)


def test_a_deadline_that_passes_says_where_the_request_was() -> None:
    async def scenario(engine: Held, served: Deployment) -> None:
        engine.running.clear()
        engine.let_go.clear()
        deadline = time.monotonic() + 0.3
        first = asyncio.create_task(stages_of(served.infer(InferenceRequest(inputs=ONE, deadline=deadline))))
        assert await asyncio.to_thread(engine.running.wait, 30)
        second = asyncio.create_task(stages_of(served.infer(InferenceRequest(inputs=ONE, deadline=deadline))))
        for call, names in ((first, ["queue", "infer"]), (second, ["queue"])):
            error, stages = await call
            assert isinstance(error, DeadlineExceeded)
            stages = [stage for stage in stages if stage.name != "batch_wait"]
            assert [stage.name for stage in stages] == names
            assert stages[-1].error == "deadline_exceeded"
            assert stages[-1].until >= deadline - 0.01

    serve(scenario)


def test_a_caller_that_leaves_cuts_a_stage_short() -> None:
    async def scenario(engine: Held, served: Deployment) -> None:
        engine.running.clear()
        engine.let_go.clear()
        call = asyncio.create_task(stages_of(served.infer(media(b"fine"))))
        assert await asyncio.to_thread(engine.running.wait, 30)
        call.cancel()
        error, stages = await call
        assert isinstance(error, asyncio.CancelledError)
        assert (stages[-1].name, stages[-1].error) == ("infer", CANCELLED)

    serve(scenario)
