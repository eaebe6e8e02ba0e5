"""Measures one candidate in this process: load, latency, throughput, memory, and how it answers. Blocks."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.engines.base import Engine, EngineOptions, Tensors
from core.engines.registry import engine_class
from core.errors import RunFailed
from core.optimiser.candidate import Candidate, Figures
from core.optimiser.fidelity import Comparison, class_output
from core.tasks.vectors import Pooled
from core.validation.memory import peak_memory_bytes

WARM_RUNS: Final = 3
MIN_RUNS: Final = 20
STOP_AFTER: Final = 8
STOP_AFTER_S: Final = 0.1
"""So many runs, for so long, tell whether a candidate is hopelessly slower: the fastest of them does, since other
work on the machine only adds."""


class Slower(Exception):
    """The candidate is so much slower than the best so far that it was stopped early; holds its p50 in ms."""

    def __init__(self, p50_ms: float) -> None:
        super().__init__(p50_ms)
        self.p50_ms = p50_ms


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: seconds for each of latency and throughput; stop where no run is within `stop_ms`."""

    seconds: float = 2.0
    stop_ms: float | None = None


def load(candidate: Candidate, artifact: Path, told: Mapping[str, Any]) -> tuple[Engine, float]:
    """A loaded engine, and the seconds that took. Raises what the engine raises."""
    variant, setting = candidate.variant, candidate.setting
    engine = engine_class(variant.engine)()
    extra = {**told, **candidate.extra}
    began = time.monotonic()
    engine.load(artifact, EngineOptions(variant.device, setting.threads, (), extra))
    return engine, time.monotonic() - began


def pin(candidate: Candidate, cores: int) -> None:
    """Keep to as many cores as the candidate is meant to use, the same for each; nothing where that can't be."""
    if candidate.variant.device != "cpu" or not hasattr(os, "sched_setaffinity"):
        return
    wanted = min(cores, candidate.setting.threads * candidate.setting.slots)
    allowed = sorted(os.sched_getaffinity(0))
    # The last ones: the first core of a machine serves most interrupts.
    with suppress(OSError):
        os.sched_setaffinity(0, set(allowed[-wanted:]))


def measure(
    engine: Engine, candidate: Candidate, item: Tensors, plan: Plan, load_s: float, before_bytes: int
) -> Figures:
    """Latency of lone batches, then throughput with all slots busy. `item` is one item's inputs. Raises Slower."""
    batch = repeated(item, candidate.setting.batch)
    for _ in range(WARM_RUNS):
        engine.run(batch)
    times_ms = _latencies(engine, batch, plan)
    throughput = _throughput(engine, batch, candidate, plan.seconds)
    if candidate.setting.slots == 1:
        throughput = max(throughput, candidate.setting.batch / (float(np.median(times_ms)) / 1000))
    return Figures(
        p50_ms=float(np.percentile(times_ms, 50)),
        p99_ms=float(np.percentile(times_ms, 99)),
        throughput_per_s=throughput,
        memory_bytes=max(0, peak_memory_bytes() - before_bytes),
        load_s=load_s,
    )


def repeated(item: Tensors, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """A batch of so many copies of one item."""
    return {name: np.repeat(array[:1], count, axis=0) if array.ndim else array for name, array in item.items()}


def _latencies(engine: Engine, batch: Tensors, plan: Plan) -> list[float]:
    times: list[float] = []
    judged = plan.stop_ms is None
    until = time.monotonic() + plan.seconds
    while len(times) < MIN_RUNS or time.monotonic() < until:
        began = time.perf_counter()
        engine.run(batch)
        times.append((time.perf_counter() - began) * 1000)
        if not judged and len(times) >= STOP_AFTER and sum(times) >= STOP_AFTER_S * 1000:
            judged = True
            if plan.stop_ms is not None and min(times) > plan.stop_ms:
                raise Slower(float(np.median(times)))
        if time.monotonic() > until + plan.seconds and len(times) >= 3:
            break
    return times


def _throughput(engine: Engine, batch: Tensors, candidate: Candidate, seconds: float) -> float:
    """Items a second with every slot in a loop of its own."""
    counts = [0] * candidate.setting.slots
    errors: list[Exception] = []
    until = time.monotonic() + seconds

    def loop(slot: int) -> None:
        try:
            while time.monotonic() < until:
                engine.run(batch)
                counts[slot] += 1
        except Exception as error:
            errors.append(error)

    began = time.monotonic()
    threads = [threading.Thread(target=loop, args=(slot,)) for slot in range(candidate.setting.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) * candidate.setting.batch / (time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Judging:
    """How long answering all feeds may take, and how many bytes the answers kept may have together."""

    seconds: float = 60.0
    max_bytes: int = 1 << 30


def answer(
    engine: Engine, feeds: Iterable[Tensors], folder: Path, bounds: Judging, pooled: Pooled | None = None
) -> int:
    """Keep the outputs for the feeds in `folder`, or the vectors made of them, for other trials to be held to.

    Ends where a bound is reached, with the first feed answered at least; returns how many were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until, size_bytes, count = time.monotonic() + bounds.seconds, 0, 0
    for number, feed in enumerate(feeds):
        outputs = _answered(engine, feed, pooled)
        size_bytes += sum(array.nbytes for array in outputs.values())
        if number and (size_bytes > bounds.max_bytes or time.monotonic() > until):
            break
        np.savez(folder / f"{number:06}.npz", **outputs)  # type: ignore[arg-type]
        count += 1
    return count


def compare(
    engine: Engine,
    feeds: Sequence[Tensors] | Iterable[Tensors],
    folder: Path,
    labels: Sequence[Sequence[int | None]],
    *,
    classes: bool,
    pooled: Pooled | None = None,
    seconds: float = math.inf,
) -> Comparison:
    """Hold the answers to the feeds against those kept in `folder`, for so long; the first in any case.

    Raises RunFailed where they cannot be compared.
    """
    comparison: Comparison | None = None
    until = time.monotonic() + seconds
    for number, feed in enumerate(feeds):
        if number and time.monotonic() > until:
            break
        with np.load(folder / f"{number:06}.npz", allow_pickle=False) as kept:
            reference = {name: kept[name] for name in kept.files}
        if comparison is None:
            comparison = Comparison(class_output(reference) if classes else None)
        try:
            comparison.add(reference, _answered(engine, feed, pooled), labels[number] if labels else ())
        except ValueError as error:
            raise RunFailed(str(error)) from error
    if comparison is None:
        raise RunFailed("There is nothing to compare.")
    return comparison


def _answered(engine: Engine, feed: Tensors, pooled: Pooled | None) -> dict[str, np.ndarray[Any, Any]]:
    """What a caller would get: of a task that pools its outputs, the vectors."""
    outputs = _plain(engine.run(feed))
    return {pooled.output: pooled.of(outputs, feed)} if pooled and pooled.output in outputs else outputs


def _plain(outputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """Numbers that a file can hold: 16-bit floats as 32-bit, text as fixed-width."""
    plain = {}
    for name, array in outputs.items():
        if array.dtype.kind == "O":
            plain[name] = array.astype(np.str_)
        elif array.dtype.kind == "V" or array.dtype == np.float16:
            plain[name] = array.astype(np.float32)
        else:
            plain[name] = array
    return plain
