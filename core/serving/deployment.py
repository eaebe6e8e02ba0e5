"""One version of one model in service: preprocess, run, postprocess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np

from core.errors import InvalidInput, NotReady, ShuttingDown
from core.serving.gathering import Gathering
from core.serving.input_check import InputCheck
from core.serving.live_stream import LiveStream
from core.serving.ragged import join_outputs
from core.serving.request import DEFAULT_PRIORITY, InferenceRequest, InferenceResult, SequencePart, Timing
from core.serving.request_queue import QueuedRequest
from core.serving.result_cache import ResultCache, ResultStore, keeps_results
from core.serving.runner import LocalRunner, Runner, RunnerStats
from core.serving.sampler import Sampler
from core.serving.shadow import Mirror
from core.serving.steps import Drive, all_or_none
from core.serving.trace import noting
from core.serving.version_health import VersionHealth
from core.signature import Signature
from core.tasks.base import Payload, Prepared, Task
from core.tasks.stepped import State, StatefulTask, SteppedTask
from core.tasks.streams import StreamedTask

T = TypeVar("T")
Outputs = dict[str, np.ndarray[Any, Any]]
Answers = tuple[list[dict[str, Any]] | None, Outputs | None]
_KEEPS_NOTHING: Final = "The model keeps nothing from one request to the next: it takes no sequences."


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """Which version of which model, the deadline of a request that names none, and whether answers are kept."""

    model: str
    version: int
    timeout_ms: int = 30_000
    cache: bool | None = None
    """Whether answers are kept; None for what the task gains by: embeddings are, others are not."""


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
        results: ResultStore | None = None,
    ) -> None:
        self.options = options
        self.runner = runner
        self.why_not_batching: str | None = None
        self.note = ""
        """What there is to say about the way it runs, as a sentence; empty where nothing is."""
        self.search: int | None = None
        """Whose recommendation it runs by, where that is another form than would run without it."""
        self.recipe: dict[str, Any] = {}
        """How another process can make the same deployment, on the same host."""
        self.health = VersionHealth()
        self.mirrors: Sequence[Mirror] = ()
        """Who gets copies of what is answered here."""
        self.sampler: Sampler | None = None
        """Who takes some of the inputs aside, where that is wanted."""
        self.cache: ResultCache | None = None
        """Answers given before, where they are kept."""
        self._results = results
        self._make_task = make_task
        self._threads = threads
        self._siblings = Gathering(threads)
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
            if self._results is not None and keeps_results(self.options.cache, self._task.name):
                self.cache = ResultCache(self._results, self._infer, self.options.timeout_ms)
        except BaseException:
            await self.close()
            raise
        self._started = True

    def check_room(self) -> None:
        """See Target. An answer that is kept needs no room."""
        if self._started and not self._closing and self.cache is None:
            self.runner.admit(1)
            self.runner.release(1)

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Answer one request; see Target."""
        self._refuse_if_closing()
        if not self._started:
            raise NotReady("The model is not loaded yet.", retry_after_s=1)
        if self.cache is None or request.sequence is not None:
            return await self._infer(request)
        return await self.cache.infer(request)

    async def _infer(self, request: InferenceRequest) -> InferenceResult:
        self._refuse_if_closing()
        started = time.monotonic()
        deadline = request.deadline or started + self.options.timeout_ms / 1000
        timing = Timing(noting=noting(self.options.model, self.options.version))
        try:
            if request.sequence is not None:
                answers, outputs = await self._infer_part(request, request.sequence, deadline, timing)
            elif request.payloads is not None:
                answers, outputs = await self._infer_media(request, deadline, timing)
            else:
                answers, outputs = await self._infer_tensors(request, deadline, timing)
        except BaseException as error:
            self.failed(request, error)
            raise
        timing.total = (time.monotonic() - started) * 1000
        return self._answered(request, timing, answers, outputs)

    @property
    def listens(self) -> bool:
        """Whether `open_stream` makes something of pieces; otherwise each frame is a request of its own."""
        return isinstance(self._task, StreamedTask)

    def open_stream(self, parameters: Mapping[str, Any], priority: int = DEFAULT_PRIORITY) -> LiveStream:
        """A stream of this version, for as long as the caller holds its lease.

        Each call on it has the deployment's own timeout. Raises InvalidInput for wrong parameters, and where the
        task takes whole inputs only; NotReady; ShuttingDown.
        """
        self._refuse_if_closing()
        if not self._started:
            raise NotReady("The model is not loaded yet.", retry_after_s=1)
        if not isinstance(self._task, StreamedTask):
            raise InvalidInput(f"The task {self._task.name} takes whole inputs, one by one.")

        def drive(timing: Timing) -> Drive:
            self._refuse_if_closing()
            timing.noting = noting(self.options.model, self.options.version)
            deadline = time.monotonic() + self.options.timeout_ms / 1000
            return Drive(self.runner, self._in_thread, priority, deadline, timing)

        return LiveStream(self._task.open_stream(parameters), drive)

    def begin(self, request: InferenceRequest) -> QueuedRequest:
        """Let a request of tensors wait, without a task: for whoever waits for its `future` by a callback.

        Then either `finish` or `failed` must be called, unless the caller leaves. Raises as `infer`. The runner
        must be a LocalRunner, and the task one that keeps nothing.
        """
        self._refuse_if_closing()
        if request.sequence is not None:
            raise InvalidInput(_KEEPS_NOTHING)
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
            queued.queue_s * 1000,
            queued.batch_wait_s * 1000,
            0.0,
            queued.infer_s * 1000,
            0.0,
            (now - queued.enqueued_at) * 1000,
            queued.engine_s * 1000,
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
        result = InferenceResult(
            options.model, options.version, self._task.name, timing, answers, outputs, self._items(request)
        )
        for mirror in self.mirrors:
            mirror.copy(request, result)
        if self.sampler is not None:
            self.sampler.take(request)
        return result

    def _items(self, request: InferenceRequest) -> int:
        if request.payloads is not None:
            return len(request.payloads)
        if self.why_not_batching is not None or not request.inputs:
            return 1
        items: int = next(iter(request.inputs.values())).shape[0]
        return items

    async def close(self) -> None:
        """Refuse what waits and give everything back. May be called twice."""
        self._closing = True
        if self.cache is not None:
            self.cache.close()
        await self.runner.close()

    async def _infer_media(self, request: InferenceRequest, deadline: float, timing: Timing) -> Answers:
        payloads = request.payloads or ()
        items = len(payloads)
        if isinstance(self._task, SteppedTask):
            return await self._infer_steps(self._task, payloads, request, deadline, timing), None
        in_thread = self._siblings.call if request.sibling else self._in_thread
        self.runner.admit(items)
        before = time.monotonic()
        try:
            prepared = await in_thread(self._task.preprocess, payloads, request.parameters)
            self._refuse_if_closing()
        except BaseException as error:
            self.runner.release(items)
            timing.failed("preprocess", before, error)
            raise
        timing.preprocessed(before)
        if prepared.lengths is not None:
            timing.tokens = sum(prepared.lengths)
            return await self._infer_each(prepared, request, deadline, timing)
        outputs = await self._run_items(prepared.inputs, items, request, deadline, timing)
        if request.raw:
            return None, outputs
        after = in_thread(self._task.postprocess, outputs, prepared.contexts, request.parameters)
        return await _postprocessed(after, timing), None

    async def _infer_each(
        self, prepared: Prepared, request: InferenceRequest, deadline: float, timing: Timing
    ) -> Answers:
        """Run items that differ in length, each with its like."""
        priority, noting = request.priority, timing.noting
        result = await self.runner.run_each(prepared, priority=priority, deadline=deadline, noting=noting)
        timing.ran(result)
        if request.raw:
            return None, join_outputs(result.outputs)
        after = self._in_thread(self._answer_each, result.outputs, prepared, request.parameters)
        return await _postprocessed(after, timing), None

    def _answer_each(
        self, outputs: Sequence[Outputs], prepared: Prepared, parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        items = zip(outputs, prepared.contexts, strict=True)
        return [answer for one, context in items for answer in self._task.postprocess(one, [context], parameters)]

    async def _infer_steps(
        self,
        task: SteppedTask,
        payloads: Sequence[Payload],
        request: InferenceRequest,
        deadline: float,
        timing: Timing,
    ) -> list[dict[str, Any]]:
        """Items side by side, so that their runs share batches; one that fails ends the others."""
        if request.raw:
            raise InvalidInput("The task's answers take several runs of the model: there are no raw outputs.")
        drive = Drive(self.runner, self._in_thread, request.priority, deadline, timing)
        with drive.admitted(len(payloads)):
            steps = [task.steps(payload, request.parameters) for payload in payloads]
            if len(steps) == 1:
                return [await drive.answer(steps[0], admitted=True)]
            return await all_or_none(drive.answer(each, admitted=True) for each in steps)

    async def _infer_part(
        self, request: InferenceRequest, part: SequencePart, deadline: float, timing: Timing
    ) -> Answers:
        """One part of a sequence. What fails changes nothing of what is kept."""
        task = self._task
        if not isinstance(task, StatefulTask):
            raise InvalidInput(_KEEPS_NOTHING)
        hold = await self.runner.hold(part, deadline)
        try:
            state = hold.state or task.first_state()
            make = self._part_of_tensors if request.payloads is None else self._part_of_media
            answers, after = await make(task, request, state, deadline, timing)
        except BaseException:
            hold.give_back()
            raise
        hold.keep(None if part.end else after)
        return answers

    async def _part_of_media(
        self, task: StatefulTask, request: InferenceRequest, state: State, deadline: float, timing: Timing
    ) -> tuple[Answers, State]:
        payloads = request.payloads or ()
        if len(payloads) != 1 or request.raw:
            raise InvalidInput("A part of a sequence is one input, and is answered by the task.")
        assert request.sequence is not None
        steps = task.part(payloads[0], request.parameters, state, last=request.sequence.end)
        drive = Drive(self.runner, self._in_thread, request.priority, deadline, timing)
        with drive.admitted(1):
            answer, after = await drive.answer(steps, admitted=True)
        return ([answer], None), after

    async def _part_of_tensors(
        self, task: StatefulTask, request: InferenceRequest, state: State, deadline: float, timing: Timing
    ) -> tuple[Answers, State]:
        """The caller gives what is no state; all outputs are answered."""
        kept = {name: state[name] for name in task.state_tensors}
        answers = await self._infer_tensors(
            replace(request, inputs={**kept, **(request.inputs or {})}), deadline, timing
        )
        outputs = answers[1] or {}
        return answers, {**state, **{name: outputs[after] for name, after in task.state_tensors.items()}}

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
        result = await self.runner.run(
            inputs,
            items,
            priority=request.priority,
            deadline=deadline,
            sibling=request.sibling,
            noting=timing.noting,
        )
        timing.ran(result)
        return result.outputs

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise ShuttingDown("This version of the model is being taken down; try again.", retry_after_s=1)

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


async def _postprocessed(answers: Awaitable[list[dict[str, Any]]], timing: Timing) -> list[dict[str, Any]]:
    """What the task makes of outputs, begun just now."""
    before = time.monotonic()
    try:
        found = await answers
    except BaseException as error:
        timing.failed("postprocess", before, error)
        raise
    timing.postprocessed(before)
    return found
