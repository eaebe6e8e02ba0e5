"""Inputs made up for a first run, so that no caller pays for what an engine does lazily."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import numpy as np

from core.engines.base import Engine
from core.errors import PlatformError
from core.serving.batch_size_policy import TOLERANCE, BatchCosts
from core.serving.engine_worker import busy_seconds
from core.signature import NUMPY_DTYPES, Signature

MAX_ELEMENTS = 50_000_000
SHORT_S = 0.001
IN_VAIN = 2
"""After so many doublings that made an item no cheaper, no larger batch is expected to."""
BUDGET_S = 0.5
"""What finding out how the time of a batch grows with its size may take, beyond the first run."""


def warm_up_inputs(signature: Signature) -> dict[str, np.ndarray[Any, Any]] | None:
    """One item of zeros for each input; None where an inner dimension is dynamic and so cannot be known."""
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    for spec in signature.inputs:
        shape = tuple(1 if i == 0 and n == -1 else n for i, n in enumerate(spec.shape))
        if -1 in shape or spec.dtype == "BYTES" or np.prod(shape, dtype=np.int64) > MAX_ELEMENTS:
            return None
        inputs[spec.name] = np.zeros(shape, NUMPY_DTYPES[spec.dtype])
    return inputs


def measure_batches(
    engine: Engine, item: dict[str, np.ndarray[Any, Any]], max_batch: int, costs: BatchCosts
) -> None:
    """Run batches of 1, 2, 4 … copies of a warm engine's item, until they gain nothing more. Blocks."""
    until = time.monotonic() + BUDGET_S
    size, seconds, best, in_vain = 1, 0.0, math.inf, 0
    with suppress(PlatformError):  # a batch that cannot be run will say so to its callers
        while size <= max_batch and time.monotonic() + 4 * seconds < until:
            batch = {name: np.repeat(array, size, axis=0) for name, array in item.items()}
            if any(array.size > MAX_ELEMENTS for array in batch.values()):
                return
            seconds = _run(engine, batch)
            repeats = 1 if seconds > SHORT_S else 8  # what is short is easily disturbed
            seconds = min(seconds, *(_run(engine, batch) for _ in range(repeats)))
            costs.observe(size, seconds)
            in_vain = in_vain + 1 if seconds / size > best * (1 - TOLERANCE) else 0
            if in_vain == IN_VAIN:
                return
            best = min(best, seconds / size)
            size *= 2


def _run(engine: Engine, batch: dict[str, np.ndarray[Any, Any]]) -> float:
    """What one run cost, in seconds."""
    began, own_began = time.monotonic(), time.thread_time()
    engine.run(batch)
    return busy_seconds(time.monotonic() - began, time.thread_time() - own_began)
