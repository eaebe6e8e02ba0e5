"""Reports made by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

from app.bench.figures import Point, Samples, summarise
from app.bench.report import Report


def point(layer: str, loop: str, load: float, *took_ms: float, **more: Any) -> Point:
    """The figures of calls that took so long, in one second."""
    return summarise(layer, loop, load, Samples([*took_ms], elapsed_s=1.0, **more))


def report(*points: Point, complete: bool = True, **about: Any) -> Report:
    """These points, measured nowhere."""
    return Report(
        {
            "model": "cats",
            "version": 3,
            "task": "tensor",
            "engine": "onnx",
            "engine_version": "1.2",
            "form": "as uploaded",
            "device": "cpu",
            "widths": [2, 1],
            "max_batch": 32,
            "input": "cat.jpg (9 bytes)",
            "seconds": 1.0,
            "warm_up_s": 0.5,
            "server": "a server of its own",
            **about,
        },
        {
            "processor": "Abacus <9>",
            "cores": 2,
            "load_before": 0.1,
            "memory_bytes": 1 << 30,
            "gpus": [],
            "python": "3.11.0",
            "pulvinar": "0.1.0",
            "measured_at": "2026-01-01T00:00:00+00:00",
        },
        [*points],
        complete,
    )


def full_report(**more: Any) -> Report:
    """Every layer in both loops, with a failure and an overload."""
    return report(
        point("engine", "closed", 1, 1.0, 1.0),
        point("core", "closed", 1, 3.0, 3.0, mean_batch=1.0, stages_ms={"queue": 0.5, "infer": 2.0}),
        point("http", "closed", 1, 7.0, errors=Counter({"The server answered 503: <full> & busy.": 2})),
        point("engine", "open", 50, 1.0, 1.0),
        point("core", "open", 50, 2.0, 2.0, unsent_ms=[900.0]),
        **more,
    )
