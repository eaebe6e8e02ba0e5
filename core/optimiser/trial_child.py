"""The process of one trial: measures a candidate and says what it found, in lines of JSON on stdout.

A job on stdin; then `{"phase": …}` as it goes on, and at the end `{"done": figures}`, `{"slower": p50_ms}` or
`{"failed": sentence}`. What it dies of is for the one who started it to tell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run one job; every limit is in place before anything of the model is touched."""
    from core.validation.child import confine, report_channel

    job = json.loads(sys.stdin.buffer.read())
    gpu = job["candidate"]["device"] != "cpu"
    confine(int(job["memory_bytes"]), int(job["cpu_s"]), int(job["parent"]), int(job["file_bytes"]), gpu=gpu)
    emit = report_channel()
    emit(_try(job, emit))


def _try(job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    from core.errors import PlatformError  # loads NumPy and the engines: only within the limits
    from core.optimiser.measure import Slower

    try:
        return {"done": _measured(job, emit)}
    except Slower as slower:
        return {"slower": slower.p50_ms}
    except PlatformError as error:
        return {"failed": error.message}
    except MemoryError:
        return {"failed": "It ran out of memory."}


def _measured(job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    from core.optimiser import measure
    from core.optimiser.candidate import Candidate
    from core.optimiser.feeds import NpzFeeds
    from core.tasks.vectors import Pooled
    from core.validation.memory import peak_memory_bytes

    candidate = Candidate.from_json(job["candidate"])
    feeds = NpzFeeds([Path(path) for path in job["feeds"]])
    item = {name: array[:1] if array.ndim else array for name, array in next(iter(feeds)).items()}
    measure.pin(candidate, int(job["cores"]))
    before_bytes = peak_memory_bytes()
    emit({"phase": "loading"})
    engine, load_s = measure.load(candidate, Path(job["artifact"]), job["told"])
    emit({"phase": "measuring"})
    plan = measure.Plan(float(job["seconds"]), job["stop_ms"])
    figures = measure.measure(engine, candidate, item, plan, load_s, before_bytes)
    outputs, pooled = Path(job["outputs"]), Pooled(**job["pooled"]) if job["pooled"] else None
    if job["keep"]:
        emit({"phase": "answering"})
        bounds = measure.Judging(float(job["judge_s"]), int(job["judge_bytes"]))
        measure.answer(engine, feeds, outputs, bounds, pooled)
    elif job["compare"]:
        emit({"phase": "judging"})
        classes, seconds = bool(job["classes"]), float(job["judge_s"])
        compared = measure.compare(
            engine, feeds, outputs, job["labels"], classes=classes, pooled=pooled, seconds=seconds
        )
        figures = replace(figures, fidelity=compared.result())
    engine.close()
    return asdict(figures)
