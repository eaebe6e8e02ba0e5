"""What goes into a target and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from core.serving.trace import Noting, RunTimes
from core.tasks.base import Payload

Tensors = Mapping[str, np.ndarray[Any, Any]]

CacheOutcome = Literal["hit", "miss", "shared"]
"""A kept answer, one that was computed, or one that somebody else's request was computing already."""

DEFAULT_PRIORITY = 5
"""Priorities run from 0 (first) to 9 (last)."""


@dataclass(frozen=True, slots=True)
class SequencePart:
    """A request's place in a sequence: one stream of a model that keeps state from part to part.

    `start` forgets what was kept under `id`, `end` gives it back after the answer.
    """

    id: str
    start: bool = False
    end: bool = False


@dataclass(slots=True)
class InferenceRequest:
    """One call: media for the model's task, or tensors by name; exactly one of the two is given.

    `deadline` is in seconds of `time.monotonic()`; None takes the deployment's own timeout. With `raw`, the
    answer is the output tensors, whatever the task.
    """

    payloads: Sequence[Payload] | None = None
    inputs: Tensors | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    priority: int = DEFAULT_PRIORITY
    deadline: float | None = None
    raw: bool = False
    sequence: SequencePart | None = None
    sibling: bool = False
    """One of several that a map begins at once: they are prepared together, so that they meet in the queue."""
    trace: Any = None
    """A `core.pipelines.trace.Trace` of a pipeline's run, where somebody looks at it."""


class Run(RunTimes, Protocol):
    """One run of a model for a request."""

    @property
    def engine_s(self) -> float:
        """The request's share of the batch's time, by items."""


@dataclass(slots=True)
class Timing:
    """Where the time of one request went, in milliseconds."""

    queue: float = 0.0
    batch_wait: float = 0.0
    """The part of `queue` in which a slot was free and the batch was still being filled."""
    preprocess: float = 0.0
    infer: float = 0.0
    postprocess: float = 0.0
    total: float = 0.0
    engine: float = 0.0
    """Milliseconds of engines that were this request's own: of each batch its share, by items. For usage."""
    tokens: int = 0
    """What its texts came to, where the task tells. For usage."""
    noting: Noting | None = None
    """Who else is told of each stage; only of a request that is traced."""

    def preprocessed(self, since: float) -> None:
        """That took until now."""
        until = time.monotonic()
        self.preprocess += (until - since) * 1000
        if self.noting is not None:
            self.noting.add("preprocess", since, until)

    def postprocessed(self, since: float) -> None:
        """That took until now."""
        until = time.monotonic()
        self.postprocess += (until - since) * 1000
        if self.noting is not None:
            self.noting.add("postprocess", since, until)

    def failed(self, stage: str, since: float, error: BaseException) -> None:
        """A stage that began then was ended by an error just now."""
        if self.noting is not None:
            self.noting.failed(stage, since, error)

    def ran(self, run: Run) -> None:
        """Add one run of the model."""
        self.queue += run.queue_s * 1000
        self.batch_wait += run.batch_wait_s * 1000
        self.infer += run.infer_s * 1000
        self.engine += run.engine_s * 1000
        if self.noting is not None:
            self.noting.ran(run)

    def to_json(self) -> dict[str, float]:
        """As it goes over the wire, to the microsecond."""
        # Rounded as whole numbers: rounding to a number of digits takes five times as long.
        return {
            "queue": round(self.queue * 1000) / 1000,
            "preprocess": round(self.preprocess * 1000) / 1000,
            "infer": round(self.infer * 1000) / 1000,
            "postprocess": round(self.postprocess * 1000) / 1000,
            "total": round(self.total * 1000) / 1000,
        }


@dataclass(slots=True)
class InferenceResult:
    """The answer: one dict an item from the task, or the output tensors where the request was raw."""

    model: str
    version: int
    task: str
    timing: Timing
    answers: list[dict[str, Any]] | None = None
    outputs: dict[str, np.ndarray[Any, Any]] | None = None
    items: int = 1
    """How many the request counts for."""
    cache: CacheOutcome | None = None
    """Where the version has a result cache, what that did. A kept answer and a shared one may not be changed."""
