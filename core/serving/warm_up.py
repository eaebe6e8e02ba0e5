"""Inputs made up for a first run, so that no caller pays for what an engine does lazily."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from core.engines.base import Engine
from core.errors import PlatformError
from core.serving.batch_size_policy import TOLERANCE, BatchCosts
from core.serving.engine_worker import SHORT_S, busy_seconds
from core.signature import NUMPY_DTYPES, Signature, dtype_name

Arrays = dict[str, np.ndarray[Any, Any]]
Example = Callable[[Signature], Arrays | None]
"""Answers inputs of one item that a model takes whose signature leaves their sizes open. Blocks."""

MAX_ELEMENTS = 50_000_000
IN_VAIN = 2
"""After so many doublings that made an item no cheaper, no larger batch is expected to."""
BUDGET_S = 0.5
"""What finding out how the time of a batch grows with its size may take, beyond the first run."""


def warm_up_inputs(signature: Signature) -> Arrays | None:
    """One item of zeros for each input; None where an inner dimension is dynamic and so cannot be known."""
    inputs: Arrays = {}
    for spec in signature.inputs:
        shape = tuple(1 if i == 0 and n == -1 else n for i, n in enumerate(spec.shape))
        if -1 in shape or spec.dtype == "BYTES" or np.prod(shape, dtype=np.int64) > MAX_ELEMENTS:
            return None
        inputs[spec.name] = np.zeros(shape, NUMPY_DTYPES[spec.dtype])
    return inputs


def warm_up(
    engines: Sequence[Engine], signature: Signature, example: Example, widths: Sequence[int], costs: BatchCosts
) -> None:
    """Run each engine with so many threads, one after the other, and give back what that took. Blocks.

    What zeros can be made for is also measured in batches. Raises RunFailed for what fails with zeros; an example
    that fails is not the last word, for it may have been made for another form of the model.
    """
    inputs = warm_up_inputs(signature)
    if inputs is not None:
        _run_each_way(engines, inputs, widths)
        measure_batches(engines[0], inputs, costs.max_batch, costs, widths[0])
    else:
        inputs = example(signature)
        if inputs is None:
            return
        try:
            _run_each_way(engines, inputs, widths)
        except PlatformError:
            return
    for engine in engines:
        engine.shrink(inputs)


def pack_inputs(inputs: Arrays | None) -> dict[str, Any] | None:
    """Inputs as JSON, for a process that has no tasks; strings are not worth it."""
    if inputs is None or any(array.dtype == np.object_ for array in inputs.values()):
        return None
    return {
        name: [dtype_name(array.dtype), list(array.shape), base64.b64encode(array.tobytes()).decode()]
        for name, array in inputs.items()
    }


def unpack_inputs(packed: Mapping[str, Any] | None) -> Arrays | None:
    """The inverse of `pack_inputs`."""
    if packed is None:
        return None
    return {
        name: np.frombuffer(bytearray(base64.b64decode(data)), NUMPY_DTYPES[dtype]).reshape(shape)
        for name, (dtype, shape, data) in packed.items()
    }


def measure_batches(engine: Engine, item: Arrays, max_batch: int, costs: BatchCosts, threads: int = 0) -> None:
    """Run batches of 1, 2, 4 … copies of a warm engine's item, until they gain nothing more. Blocks.

    `threads` is how many a run has, 0 where that is left to the engine.
    """
    until = time.monotonic() + BUDGET_S
    size, seconds, best, in_vain = 1, 0.0, math.inf, 0
    with suppress(PlatformError):  # a batch that cannot be run will say so to its callers
        while size <= max_batch and time.monotonic() + 4 * seconds < until:
            batch = {name: np.repeat(array, size, axis=0) for name, array in item.items()}
            if any(array.size > MAX_ELEMENTS for array in batch.values()):
                return
            seconds = _run(engine, batch, threads)
            repeats = 1 if seconds > SHORT_S else 8  # what is short is easily disturbed
            seconds = min(seconds, *(_run(engine, batch, threads) for _ in range(repeats)))
            costs.observe(size, seconds)
            in_vain = in_vain + 1 if seconds / size > best * (1 - TOLERANCE) else 0
            if in_vain == IN_VAIN:
                return
            best = min(best, seconds / size)
            size *= 2


def _run_each_way(engines: Sequence[Engine], inputs: Arrays, widths: Sequence[int]) -> None:
    for engine in engines:
        for threads in widths:
            engine.run_wide(inputs, threads)


def _run(engine: Engine, batch: Arrays, threads: int) -> float:
    """What one run cost, in seconds."""
    began, own_began = time.monotonic(), time.thread_time()
    engine.run(batch)
    return busy_seconds(time.monotonic() - began, time.thread_time() - own_began, threads)
