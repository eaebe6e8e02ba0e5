"""What comes of running one request's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.serving.request_queue import QueuedRequest
from core.serving.trace import BatchRun

Outputs = dict[str, np.ndarray[Any, Any]]


@dataclass(slots=True)
class RunResult:
    """The outputs of one request, and how long it waited and ran, in seconds."""

    outputs: Outputs
    queue_s: float
    infer_s: float
    batch_wait_s: float = 0.0
    """The part of `queue_s` in which a slot was free and the batch was still being filled."""
    engine_s: float = 0.0
    """The request's share of `infer_s`, by items."""
    started_at: float = 0.0
    """When its batch began, in seconds of `time.monotonic()`."""
    batch: BatchRun | None = None
    """The batch, where the request is traced."""


@dataclass(slots=True)
class EachResult:
    """The outputs of each item, and the times of the one that ended last, in seconds; see RunResult."""

    outputs: list[Outputs]
    queue_s: float
    infer_s: float
    batch_wait_s: float = 0.0
    engine_s: float = 0.0
    """The sum of the items' shares."""
    started_at: float = 0.0
    batch: BatchRun | None = None


def times_of(queued: QueuedRequest, engine_s: float) -> tuple[float, float, float, float, float]:
    """Of a request that ran: seconds in the queue, in the engine, for company, its share, and when it began."""
    return queued.queue_s, queued.infer_s, queued.batch_wait_s, engine_s, queued.started_at
