"""What goes into a target and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.tasks.base import Payload

Tensors = Mapping[str, np.ndarray[Any, Any]]

DEFAULT_PRIORITY = 5
"""Priorities run from 0 (first) to 9 (last)."""


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
