"""Twenty swaps of the live version under load: does a request fail, and what does a swap cost the others?

`python -m benchmarks.hot_swap --seconds 10 --swaps 20 --connections 16`
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import models
from benchmarks.harness import load, options, report
from benchmarks.harness.load import Load, Measured
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.pulvinar import MODEL_OF, Admin, Installation
from benchmarks.harness.report import Reach, at_most
from benchmarks.harness.svg import Bars, bar_chart
from benchmarks.harness.workload import TINY, Workload, photo

SLOWER = 1.5


@dataclass(frozen=True)
class Swapped:
    """What one workload went through."""

    workload: str
    connections: int
    steady: Measured
    swapping: Measured
    swap_s: list[float]

    @property
    def p99_ratio(self) -> float:
        """p99 while swapping over p99 in peace."""
        return self.swapping.p99_ms / self.steady.p99_ms

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "workload": self.workload,
            "connections": self.connections,
            "steady": self.steady.to_json(),
            "swapping": self.swapping.to_json(),
            "swap_s": [round(seconds, 3) for seconds in self.swap_s],
            "p99_ratio": round(self.p99_ratio, 3),
        }


def swap_under_load(workload: Workload, connections: int, seconds: float, swaps: int) -> Swapped:
    """Two versions of one model, live in turn; the last change of every four is a rollback."""
    installation = Installation(f"hot-swap-{workload.kind}")
    model = installation.add_model_for(workload.kind)
    package = models.tiny_model() if workload.kind == "tiny" else models.classifier_package()
    installation.add_model(MODEL_OF[workload.kind], package, deploy=False)
    installation.create_token()
    call = installation.call(workload)
    with installation.start([server_core()]) as server, Admin(server.port) as admin:
        steady = load.run(server.port, call, connections, seconds, [load_core()])
        pause_s = seconds / swaps
        wrk = Load(server.port, call, connections, 600, [load_core()])
        try:
            took = []
            for index in range(swaps):
                time.sleep(pause_s)
                took.append(_swap(admin, model, index))
            time.sleep(pause_s)
            swapping = wrk.stop()
        finally:
            wrk.kill()
    return Swapped(workload.name, connections, steady, swapping, took)


def _swap(admin: Admin, model: str, index: int) -> float:
    if index % 4 == 3:
        return admin.rollback(model)
    return admin.deploy(model, version=2 - index % 2)


def reaches(found: Swapped) -> list[Reach]:
    """No failure, and p99 close to what it was."""
    return [
        at_most(f"{found.workload}: failed requests in {len(found.swap_s)} swaps", 0, found.swapping.failures, ""),
        at_most(f"{found.workload}: p99 while swapping over steady", SLOWER, found.p99_ratio),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", seconds=10, rounds=1)
    parser.add_argument("--swaps", type=int, default=20, help="changes of the live version")
    chosen = parser.parse_args(arguments)
    found = [
        swap_under_load(workload, chosen.connections[0], chosen.seconds, chosen.swaps)
        for workload in (TINY, photo(640, 480))
    ]
    head = [
        "workload",
        "steady p50 ms",
        "steady p99 ms",
        "swapping p99 ms",
        "slowest ms",
        "failed",
        "swap s (median)",
    ]
    rows = [
        [one.workload, f"{one.steady.p50_ms:.2f}", f"{one.steady.p99_ms:.2f}", f"{one.swapping.p99_ms:.2f}",
         f"{one.swapping.max_ms:.0f}", str(one.swapping.failures), f"{median(one.swap_s):.2f}"]
        for one in found
    ]  # fmt: skip
    report.save(
        "hot_swap",
        vars(chosen),
        {"runs": [one.to_json() for one in found]},
        [report.table(head, rows)],
        [reach for one in found for reach in reaches(one)],
        bar_chart(
            Bars(
                "p99 before and while versions are swapped",
                "ms",
                {one.workload: {"steady": one.steady.p99_ms, "swapping": one.swapping.p99_ms} for one in found},
            )
        ),
    )


if __name__ == "__main__":
    main()
