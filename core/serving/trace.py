"""What is noted of a request that is traced: when each of its stages was, and with whom it shared a batch.

Nothing here knows how traces are sent anywhere. A request that is not traced has no `Trace`, and then nothing is
noted. Times are in seconds of `time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol

from core.errors import PlatformError

MOST_STAGES: Final = 1000
"""Of one request; a map over thousands of items has more, and those are only counted."""
MOST_LINKS: Final = 128
"""Of one batch: what the protocol's readers keep of a span."""
CANCELLED: Final = "cancelled"
"""What cut a stage short was not in it: its caller left, or something beside it failed."""


class SpanId(NamedTuple):
    """Where a span is: lower-case hexadecimal, 32 digits of the trace and 16 of the span."""

    trace_id: str
    span_id: str

    def child(self) -> SpanId:
        """A new span of the same trace."""
        return SpanId(self.trace_id, _digits(16))


class BatchRun(NamedTuple):
    """One run of a batch with traced requests in it. One of them alone is given `links`: it tells of the run."""

    id: SpanId
    since: float
    until: float
    items: int
    requests: int
    links: tuple[SpanId, ...] = ()

    def to_json(self) -> list[Any]:
        """Lists of numbers and strings."""
        return [list(self.id), *self[1:-1], [list(link) for link in self.links]]

    @classmethod
    def from_json(cls, said: Sequence[Any]) -> BatchRun:
        """The inverse of `to_json`."""
        id, since, until, items, requests, links = said
        return cls(SpanId(*id), since, until, items, requests, tuple([SpanId(*link) for link in links]))


class Stage(NamedTuple):
    """One stage of a request, in the model that it was a stage of."""

    name: str
    since: float
    until: float
    model: str
    version: int
    batch: SpanId | None = None
    error: str = ""
    """The code of what ended it, where that was an error; or CANCELLED."""


class Ended(NamedTuple):
    """How a span that has stages ended; `inner` where it is within a request's."""

    name: str
    until: float
    attributes: Mapping[str, Any]
    failed: bool
    inner: bool


class RunTimes(Protocol):
    """When a request waited and ran, in seconds."""

    @property
    def started_at(self) -> float:
        """When its batch began."""

    @property
    def queue_s(self) -> float:
        """How long it waited until then."""

    @property
    def batch_wait_s(self) -> float:
        """The last part of that, in which a slot was free."""

    @property
    def infer_s(self) -> float:
        """How long the batch ran."""

    @property
    def batch(self) -> BatchRun | None:
        """The batch, where it is traced."""


class CutShort(Protocol):
    """How far a request came that has no answer of its run; times in seconds of `time.monotonic()`."""

    @property
    def enqueued_at(self) -> float:
        """When it began to wait."""

    @property
    def started_at(self) -> float:
        """When its batch began; 0 where it still waited."""

    @property
    def batch(self) -> BatchRun | None:
        """The batch, where that has ended."""


class Halted(NamedTuple):
    """What another process tells of a request of ours that it did not answer; see CutShort."""

    enqueued_at: float
    started_at: float
    batch: BatchRun | None


class Trace:
    """A request's span and what happened in it. `export` is called once, at its end."""

    __slots__ = ("_export", "_inner", "batches", "id", "left_out", "parent", "since", "stages")

    def __init__(
        self, id: SpanId, parent: SpanId | None, export: Callable[[Trace, Ended], None], *, inner: bool = False
    ) -> None:
        self.id = id
        self.parent = parent
        self.since = time.monotonic()
        self._inner = inner
        self.stages: list[Stage] = []
        self.batches: list[BatchRun] = []
        self.left_out = 0
        """Stages beyond `MOST_STAGES`."""
        self._export: Callable[[Trace, Ended], None] | None = export

    def child(self) -> Trace | None:
        """A span within this one that has stages of its own: a frame of a stream. None after the end."""
        return None if self._export is None else Trace(self.id.child(), self.id, self._export, inner=True)

    def stage(self, stage: Stage) -> None:
        """Note a stage; not after the end, which a copy for a shadow may outlive."""
        if self._export is None:
            return
        if len(self.stages) < MOST_STAGES:
            self.stages.append(stage)
        else:
            self.left_out += 1

    def end(self, name: str, attributes: Mapping[str, Any], *, failed: bool) -> None:
        """The request is over; a second call does nothing."""
        export, self._export = self._export, None
        if export is not None:
            export(self, Ended(name, time.monotonic(), attributes, failed, self._inner))


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request that this task works for."""


class Noting:
    """Notes the stages that a request has in one model."""

    __slots__ = ("_model", "_trace", "_version")

    def __init__(self, trace: Trace, model: str, version: int) -> None:
        self._trace, self._model, self._version = trace, model, version

    def add(
        self,
        name: str,
        since: float,
        until: float,
        batch: SpanId | None = None,
        error: BaseException | None = None,
    ) -> None:
        """A stage between these times, and what ended it where that was an error."""
        said = "" if error is None else code_of(error)
        self._trace.stage(Stage(name, since, until, self._model, self._version, batch, said))

    def failed(self, name: str, since: float, error: BaseException) -> None:
        """A stage that an error ended just now."""
        self.add(name, since, time.monotonic(), error=error)

    def ran(self, run: RunTimes) -> None:
        """The stages of one run: the wait for a slot, the part of it for company, and the engine."""
        began, batch = run.started_at, run.batch
        self.add("queue", began - run.queue_s, began)
        if run.batch_wait_s > 0:
            self.add("batch_wait", began - run.batch_wait_s, began)
        self.add("infer", began, began + run.infer_s, batch.id if batch else None)
        if batch is not None and batch.links:
            self._trace.batches.append(batch)

    def cut_short(self, run: CutShort, error: BaseException) -> None:
        """The stages of a run without an answer: the wait for a slot, and the engine where it came to that."""
        if not run.started_at:
            self.failed("queue", run.enqueued_at, error)
            return
        batch = run.batch
        self.add("queue", run.enqueued_at, run.started_at)
        until = time.monotonic() if batch is None else batch.until
        self.add("infer", run.started_at, until, batch.id if batch else None, error)
        if batch is not None and batch.links:
            self._trace.batches.append(batch)


def code_of(error: BaseException) -> str:
    """What a span says of an error: a word of ours, never of a caller's."""
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    return error.code if isinstance(error, PlatformError) else PlatformError.code


def noting(model: str, version: int) -> Noting | None:
    """What notes the stages of the request that this task works for; None where that is not traced."""
    trace = current.get()
    return None if trace is None else Noting(trace, model, version)


def current_id() -> SpanId | None:
    """The span of the request that this task works for, where that is traced."""
    trace = current.get()
    return None if trace is None else trace.id


def new_id() -> SpanId:
    """The first span of a new trace."""
    return SpanId(_digits(32), _digits(16))


def batch_run(ids: Sequence[SpanId | None], items: int, since: float, until: float) -> BatchRun:
    """A batch of requests with these spans; None for those that are not traced."""
    links = tuple([id for id in ids if id is not None][:MOST_LINKS])
    return BatchRun(new_id(), since, until, items, len(ids), links)


def _digits(count: int) -> str:
    # No secrets: they only have to be unlike each other, and not all zeros.
    return f"{random.getrandbits(4 * count) or 1:0{count}x}"  # nosec B311
