"""A pipeline in service, called like any model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from core.errors import DeadlineExceeded, InvalidInput, QueueFull
from core.media import images
from core.pipelines.definition import MISSING
from core.pipelines.pins import Pins
from core.pipelines.plan import Plan
from core.pipelines.run import Call, Place, Run, Values, find, together
from core.pipelines.timings import NodeTimes
from core.pipelines.validation import NODE_TIMINGS
from core.pipelines.values import problem_with
from core.serving.catalogue import Catalogue
from core.serving.gathering import Gathering
from core.serving.input_check import InputCheck
from core.serving.request import InferenceRequest, InferenceResult, Timing
from core.serving.target import Target
from core.signature import Signature, TensorSpec
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload

TASK: Final = "pipeline"
ITEMS_AT_ONCE: Final = 8
"""Of one request: each holds its decoded image."""


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How a pipeline is served: `queue_size` items may be under way at once, each for `timeout_ms`."""

    timeout_ms: int = 30_000
    queue_size: int = 32


class Pipeline:
    """A Target made of other targets. `call` calls a model, and may count that."""

    def __init__(
        self,
        model: str,
        version: int,
        plan: Plan,
        catalogue: Catalogue,
        threads: ThreadPoolExecutor,
        options: PipelineOptions | None = None,
        limits: MediaLimits = DEFAULT_LIMITS,
        call: Call | None = None,
    ) -> None:
        self.plan = plan
        self.options = options or PipelineOptions()
        self._model = model
        self._version = version
        self._catalogue = catalogue
        self._threads = threads
        self._gathering = Gathering(threads)
        self._limits = limits
        self._call = call or _infer
        self._signature = signature_of(plan)
        self._check = InputCheck(self._signature)
        self._under_way = 0
        self.node_times = NodeTimes()

    @property
    def model(self) -> str:
        """The name it is called by."""
        return self._model

    @property
    def version(self) -> int:
        """The version that answers."""
        return self._version

    @property
    def task(self) -> str:
        """`pipeline`, whatever its models do."""
        return TASK

    @property
    def modality(self) -> str:
        """What a call brings."""
        return self.plan.modality

    @property
    def signature(self) -> Signature:
        """Its tensors; empty where it takes a file or a text."""
        return self._signature

    def missing(self) -> list[str]:
        """The models that it needs and that cannot be called now, in the order of their names."""
        return sorted(
            {
                model
                for model, version in self.plan.models()
                if not any(version in (None, target.version) for target in self._catalogue.callable_targets(model))
            }
        )

    def check_room(self) -> None:
        """See Target."""
        self._admit(1)

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """See Target. Raises InvalidInput, QueueFull, DeadlineExceeded, and the errors of its nodes, named."""
        if request.raw and not self._signature.outputs:
            raise InvalidInput("This pipeline answers no tensors; call it by the native API.")
        if request.sequence is not None:
            raise InvalidInput("A pipeline keeps nothing from one request to the next: it takes no sequences.")
        payloads = request.payloads if request.payloads is not None else [None]
        started = time.monotonic()
        deadline = request.deadline or started + self.options.timeout_ms / 1000
        parameters = self._parameters(request.parameters)
        self._admit(len(payloads))
        self._under_way += len(payloads)
        timing = Timing()
        try:
            async with Pins(self._catalogue, self.plan.models(), deadline) as pins:
                runs = [
                    Run(pins, self._call, self._gathering, request, deadline, trace=request.trace)
                    for _ in payloads
                ]
                results = await self._run_all(runs, payloads, parameters, deadline, timing)
        finally:
            self._under_way -= len(payloads)
        timing.total = (time.monotonic() - started) * 1000
        for run in runs:
            run.timings.add_up(timing)
            self.node_times.add(run.timings)
        result = InferenceResult(self._model, self._version, TASK, timing, items=len(runs))
        if self._signature.outputs:
            result.outputs = results[0]
        else:
            asked = request.parameters.get(NODE_TIMINGS) is True
            more = [{NODE_TIMINGS: run.timings.to_json()} if asked else {} for run in runs]
            result.answers = [{**one, **extra} for one, extra in zip(results, more, strict=True)]
        return result

    async def _run_all(
        self,
        runs: list[Run],
        payloads: Any,
        parameters: Values,
        deadline: float,
        timing: Timing,
    ) -> list[Values]:
        results: list[Values] = [{} for _ in runs]
        left = iter(range(len(runs)))

        async def work() -> None:
            for i in left:
                results[i] = await self._run(runs[i], payloads[i], parameters, timing)

        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                if len(runs) == 1:
                    await work()
                else:
                    await together([work() for _ in range(min(len(runs), ITEMS_AT_ONCE))])
        except TimeoutError:
            node = next((run.cut_short for run in runs if run.cut_short), "")
            where = f" in node {node!r}" if node else ""
            raise DeadlineExceeded(f"The deadline passed{where}.") from None
        return results

    async def _run(self, run: Run, payload: Payload | None, parameters: Values, timing: Timing) -> Values:
        before = time.monotonic()
        values = {**parameters, **await self._medium(run.request, payload)}
        decoded = time.monotonic()
        timing.preprocess += (decoded - before) * 1000
        await run.nodes(self.plan.nodes, values, Place())
        timing.infer += (time.monotonic() - decoded) * 1000
        found = {name: find(source, values) for name, (source, _) in self.plan.outputs.items()}
        return found if self._signature.outputs else {name: to_json(value) for name, value in found.items()}

    async def _medium(self, request: InferenceRequest, payload: Payload | None) -> Values:
        """What the call brings, as the nodes take it: one image is decoded once for all of them."""
        medium = self.plan.medium
        if payload is None or medium is None:
            inputs = request.inputs or {}
            self._check.items(inputs)
            return dict(inputs)
        if self.plan.modality == "text":
            return {medium: _text(payload)}
        if self.plan.decode and payload.image is None:
            decode, loop = images.decode_scaled, asyncio.get_running_loop()
            most = self._limits.max_pixels
            image = await loop.run_in_executor(self._threads, lambda: decode(payload.data, max_pixels=most))
            return {medium: image}
        return {medium: payload}

    def _parameters(self, given: Mapping[str, Any]) -> Values:
        """The inputs that are no medium, checked, with their defaults. Raises InvalidInput."""
        known = {
            name: one
            for name, one in self.plan.definition.inputs.items()
            if name != self.plan.medium and one.type.kind != "tensor"
        }
        for name in given:
            if name not in known and name != NODE_TIMINGS:
                there = ", ".join([*known, NODE_TIMINGS])
                raise InvalidInput(f"The parameter {name[:64]!r} is not known; there are {there}.")
        values = {}
        for name, one in known.items():
            value = given.get(name, one.default)
            if value is MISSING:
                raise InvalidInput(f"The parameter {name!r} ({one.type}) is missing.")
            problem = problem_with(value, one.type)
            if problem is not None:
                raise InvalidInput(f"The parameter {name!r} {problem}.")
            values[name] = value
        return values

    def _admit(self, items: int) -> None:
        if items > self.options.queue_size:
            raise InvalidInput(f"One request may bring {self.options.queue_size} items.")
        if self._under_way + items > self.options.queue_size:
            raise QueueFull("The pipeline has as many requests under way as it may; try again.", retry_after_s=1)


async def _infer(target: Target, request: InferenceRequest) -> InferenceResult:
    return await target.infer(request)


def signature_of(plan: Plan) -> Signature:
    """The tensors of a pipeline; outputs are there only where all of them are tensors of a known kind."""
    if plan.medium is not None:
        return Signature((), ())
    inputs = tuple(
        TensorSpec(one.name, one.type.dtype, one.type.shape or ())
        for one in plan.definition.inputs.values()
        if one.type.kind == "tensor"
    )
    types = {name: type_ for name, (_, type_) in plan.outputs.items()}
    if any(one.kind != "tensor" or not one.dtype or one.shape is None for one in types.values()):
        return Signature(inputs, ())
    return Signature(inputs, tuple(TensorSpec(name, one.dtype, one.shape or ()) for name, one in types.items()))


def to_json(value: Any) -> Any:
    """A value as it is answered; arrays as nested lists, with null for what is not a number."""
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [to_json(one) for one in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _text(payload: Payload) -> str:
    try:
        return payload.data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("The text is not UTF-8.") from error
