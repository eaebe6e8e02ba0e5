"""One version of one model in service: preprocess, run, postprocess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from core.errors import NotReady, ShuttingDown
from core.serving.input_check import InputCheck
from core.serving.request import InferenceRequest, InferenceResult, Timing
from core.serving.request_queue import QueuedRequest
from core.serving.runner import LocalRunner, Runner, RunnerStats
from core.serving.sampler import Sampler
from core.serving.shadow import Mirror
from core.serving.version_health import VersionHealth
from core.signature import Signature
from core.tasks.base import Task

T = TypeVar("T")
Outputs = dict[str, np.ndarray[Any, Any]]
Answers = tuple[list[dict[str, Any]] | None, Outputs | None]


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """Which version of which model, and the deadline of a request that names none, in milliseconds."""

    model: str
    version: int
    timeout_ms: int = 30_000


class Deployment:
    """A Target made of a task and a runner. `make_task` binds the task once the signature is known.

    `threads` runs pre- and post-processing. Use `start`, then `infer`, then `close`.
    """

    def __init__(
        self,
        options: DeploymentOptions,
        runner: Runner,
        make_task: Callable[[Signature], Task],
        threads: ThreadPoolExecutor,
    ) -> None:
        self.options = options
        self.runner = runner
        self.why_not_batching: str | None = None
        self.recipe: dict[str, Any] = {}
        """How another process can make the same deployment, on the same host."""
        self.health = VersionHealth()
        self.mirrors: Sequence[Mirror] = ()
        """Who gets copies of what is answered here."""
        self.sampler: Sampler | None = None
        """Who takes some of the inputs aside, where that is wanted."""
        self._make_task = make_task
        self._threads = threads
        self._started = False
        self._closing = False

    @property
    def model(self) -> str:
        """The name it is called by."""
        return self.options.model

    @property
    def version(self) -> int:
        """The version that answers."""
        return self.options.version

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task.name

    @property
    def modality(self) -> str:
        """What media the task takes."""
        return self._task.modality

    @property
    def signature(self) -> Signature:
        """Its tensors."""
        return self.runner.signature

    async def stats(self) -> RunnerStats:
        """What its runner has done and holds now."""
        return await self.runner.stats()

    async def start(self, on_state: Callable[[str], None] = lambda state: None) -> None:
        """Load, warm and bind. Raises EngineError or InvalidPackage, having closed what it opened."""
        await self.runner.start(on_state)
        try:
            signature = self.runner.signature
            self._task = await asyncio.to_thread(self._make_task, signature)
            self._check = InputCheck(signature)
            self.why_not_batching = signature.why_not_batchable()
        except BaseException:
            await self.close()
            raise
        self._started = True

    def check_room(self) -> None:
        """See Target."""
        if self._started and not self._closing:
            self.runner.admit(1)
            self.runner.release(1)

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Answer one request; see Target."""
        self._refuse_if_closing()
        if not self._started:
            raise NotReady("The model is not loaded yet.", retry_after_s=1)
        started = time.monotonic()
        deadline = request.deadline or started + self.options.timeout_ms / 1000
        timing = Timing()
        try:
            if request.payloads is not None:
                answers, outputs = await self._infer_media(request, deadline, timing)
            else:
                answers, outputs = await self._infer_tensors(request, deadline, timing)
        except BaseException as error:
            self.failed(request, error)
            raise
        timing.total = (time.monotonic() - started) * 1000
        return self._answered(request, timing, answers, outputs)

    def begin(self, request: InferenceRequest) -> QueuedRequest:
        """Let a request of tensors wait, without a task: for whoever waits for its `future` by a callback.

        Then either `finish` or `failed` must be called, unless the caller leaves. Raises as `infer`. The runner
        must be a LocalRunner.
        """
        self._refuse_if_closing()
        runner, inputs = self.runner, request.inputs or {}
        assert isinstance(runner, LocalRunner)
        items = self._check.items(inputs)
        runner.admit(items)
        deadline = request.deadline or time.monotonic() + self.options.timeout_ms / 1000
        return runner.submit(inputs, items, priority=request.priority, deadline=deadline)

    def finish(self, request: InferenceRequest, queued: QueuedRequest, outputs: Outputs) -> InferenceResult:
        """Count the answer of what `begin` began."""
        now = time.monotonic()
        timing = Timing(
            (queued.started_at - queued.enqueued_at) * 1000,
            queued.batch_wait_s * 1000,
            0.0,
            queued.infer_s * 1000,
            0.0,
            (now - queued.enqueued_at) * 1000,
        )
        return self._answered(request, timing, None, outputs)

    def failed(self, request: InferenceRequest, error: BaseException) -> None:
        """Count the failure of what `begin` began."""
        self.health.failed(error, own_deadline=request.deadline is None)

    def _answered(
        self,
        request: InferenceRequest,
        timing: Timing,
        answers: list[dict[str, Any]] | None,
        outputs: Outputs | None,
    ) -> InferenceResult:
        self.health.answered(timing.total)
        options = self.options
        result = InferenceResult(options.model, options.version, self._task.name, timing, answers, outputs)
        for mirror in self.mirrors:
            mirror.copy(request, result)
        if self.sampler is not None:
            self.sampler.take(request)
        return result

    async def close(self) -> None:
        """Refuse what waits and give everything back. May be called twice."""
        self._closing = True
        await self.runner.close()

    async def _infer_media(self, request: InferenceRequest, deadline: float, timing: Timing) -> Answers:
        payloads = request.payloads or ()
        items = len(payloads)
        self.runner.admit(items)
        before = time.monotonic()
        try:
            prepared = await self._in_thread(self._task.preprocess, payloads, request.parameters)
            self._refuse_if_closing()
        except BaseException:
            self.runner.release(items)
            raise
        timing.preprocess = (time.monotonic() - before) * 1000
        outputs = await self._run_items(prepared.inputs, items, request, deadline, timing)
        if request.raw:
            return None, outputs
        before = time.monotonic()
        answers = await self._in_thread(self._task.postprocess, outputs, prepared.contexts, request.parameters)
        timing.postprocess = (time.monotonic() - before) * 1000
        return answers, None

    async def _infer_tensors(self, request: InferenceRequest, deadline: float, timing: Timing) -> Answers:
        inputs = request.inputs or {}
        items = self._check.items(inputs)
        self.runner.admit(items)
        return None, await self._run(inputs, items, request, deadline, timing)

    async def _run_items(
        self, inputs: Outputs, items: int, request: InferenceRequest, deadline: float, timing: Timing
    ) -> Outputs:
        """Run prepared media; a model whose batch axis is fixed gets them one by one."""
        if self.why_not_batching is None or items == 1:
            return await self._run(inputs, items, request, deadline, timing)
        parts = []
        for i in range(items):
            one = {name: array[i : i + 1] for name, array in inputs.items()}
            try:
                parts.append(await self._run(one, 1, request, deadline, timing))
            except BaseException:
                self.runner.release(items - i - 1)
                raise
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def _run(
        self, inputs: Mapping[str, Any], items: int, request: InferenceRequest, deadline: float, timing: Timing
    ) -> Outputs:
        result = await self.runner.run(inputs, items, priority=request.priority, deadline=deadline)
        timing.queue += result.queue_s * 1000
        timing.batch_wait += result.batch_wait_s * 1000
        timing.infer += result.infer_s * 1000
        return result.outputs

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise ShuttingDown("This version of the model is being taken down; try again.", retry_after_s=1)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
