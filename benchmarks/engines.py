"""Which engine and precision runs the demo classifier soonest? One thread, one item, in turns in one process.

python -m benchmarks.engines --rounds 5 --runs 40 --batch 1
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.engines.base import Engine, EngineOptions
from core.engines.registry import engine_class

DEMO = Path(__file__).resolve().parents[1] / "demo/models/efficientnet-lite0/model.onnx"


@dataclass(frozen=True)
class Candidate:
    """An engine with its options."""

    engine: str
    extra: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As the table shows it."""
        return " ".join([self.engine, *map(str, self.extra.values())])


CANDIDATES = (
    Candidate("onnx", {}),
    Candidate("openvino", {"precision": "fp32"}),
    Candidate("openvino", {"precision": "bf16"}),
    Candidate("openvino", {"precision": "fp16"}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; what is not installed or not computed in here is left out and named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=40, help="of each candidate in each round")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--model", type=Path, default=DEMO)
    chosen = parser.parse_args(arguments)
    loaded = [(candidate, engine) for candidate in CANDIDATES if (engine := _load(candidate, chosen.model))]
    spec = loaded[0][1].load(chosen.model, EngineOptions(threads=1)).inputs[0]
    shape = [chosen.batch, *(size if size != -1 else 1 for size in spec.shape[1:])]
    x = {spec.name: np.random.default_rng(0).random(shape, np.float32)}
    times: dict[str, list[float]] = {candidate.name: [] for candidate, _ in loaded}
    for _ in range(chosen.rounds):
        for candidate, engine in loaded:
            times[candidate.name] += _times(engine, x, chosen.runs)
    right = _answer(loaded[0][1], x)
    print(
        "| engine | p50 ms | p10 ms | p90 ms | against the first | largest difference |\n|---|---|---|---|---|---|"
    )
    first = statistics.median(times[loaded[0][0].name])
    for candidate, engine in loaded:
        low, *_, high = statistics.quantiles(times[candidate.name], n=10)
        median = statistics.median(times[candidate.name])
        difference = float(np.abs(_answer(engine, x) - right).max())
        figures = f"{median:.2f} | {low:.2f} | {high:.2f} | {first / median:.2f}x | {difference:.2g}"
        print(f"| {candidate.name} | {figures} |")
    return 0


def _load(candidate: Candidate, model: Path) -> Engine | None:
    engine = engine_class(candidate.engine)()
    try:
        engine.load(model, EngineOptions(threads=1, extra=candidate.extra))
    except Exception as error:
        print(f"{candidate.name} is left out: {error}")
        return None
    return engine


def _times(engine: Engine, inputs: Mapping[str, np.ndarray[Any, Any]], runs: int) -> list[float]:
    for _ in range(3):
        engine.run(inputs)
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        engine.run(inputs)
        found.append((time.perf_counter() - began) * 1e3)
    return found


def _answer(engine: Engine, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return next(iter(engine.run(inputs).values())).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
