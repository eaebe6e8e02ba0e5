"""What it costs to be seen: the tiny model with metrics, history and tracing, against the same without them.

`python -m benchmarks.observed --seconds 5 --rounds 9 --connections 16,64`

`off` counts nothing and keeps no history, for which `peers/unobserved.py` starts the server: no setting does that.
`metrics and history` is the product as it is installed. The others trace one request in a hundred, and all of
them; spans go to a sink that shares the load's core.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import median

from benchmarks.door_cost import Arm, Run, lost_percent, measure
from benchmarks.harness import options, report
from benchmarks.harness.machine import load_core
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import Reach, at_most
from benchmarks.harness.server import Server, free_port
from benchmarks.harness.workload import Kind

MOST_PERCENT = 5.0
UNOBSERVED = (sys.executable, "-m", "benchmarks.peers.unobserved")
OFF, USUAL, SAMPLED, TRACED = "off", "metrics and history", "and 1 % traced", "and all traced"


@dataclass
class Observed(Arm):
    """Pulvinar, seen more or less."""

    env: dict[str, str] = field(default_factory=dict)

    def prepare(self, kind: Kind) -> None:
        """A fresh data directory with the model and a token."""
        made = Installation(f"observed-{self.name.replace(' ', '-').replace('%', 'percent')}")
        made.add_model_for(kind)
        made.create_token()
        made.more_env.update(self.env)
        self.installation = made

    def start(self, kind: Kind, cores: Iterable[int] | None) -> Server:
        """Serve what was prepared."""
        assert self.installation is not None
        if self.name == OFF:
            return self.installation.start(cores, program=UNOBSERVED)
        return self.installation.start(cores)


def arms(port: int) -> list[Observed]:
    """All off, then more and more; `port` is the sink's."""
    tracing = {
        "PULVINAR_TRACING__ENABLED": "true",
        "PULVINAR_TRACING__ENDPOINT": f"http://127.0.0.1:{port}/v1/traces",
        "PULVINAR_TRACING__QUEUE_SPANS": "65536",
    }
    return [
        Observed(OFF),
        Observed(USUAL),
        Observed(SAMPLED, env={**tracing, "PULVINAR_TRACING__SAMPLE_RATIO": "0.01"}),
        Observed(TRACED, env=tracing),
    ]


@contextmanager
def sink() -> Iterator[int]:
    """Somebody who takes spans; answers the port."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.peers.span_sink", str(port)]
    running = Server("span-sink", command, port, {}, [load_core()])
    try:
        yield port
    finally:
        running.stop()


def table(runs: Sequence[Run], connections: Sequence[int]) -> str:
    """Medians of each arm, and what they lose by throughput and by the server's CPU time a request."""
    rows = []
    for count in connections:
        for arm in (OFF, USUAL, SAMPLED, TRACED):
            mine = [run for run in runs if (run.arm, run.connections) == (arm, count)]
            lost = [lost_percent(runs, arm, count, figure) for figure in ("requests_per_s", "cpu_us")]
            rate, cpu_us = median(run.requests_per_s for run in mine), median(run.cpu_us for run in mine)
            rows.append([arm, str(count), f"{rate:,.0f}", f"{cpu_us:.1f}", *(f"{one:.1f} %" for one in lost)])
    head = ["", "connections", "requests/s", "CPU µs a request", "throughput lost", "by CPU time"]
    return report.table(head, rows)


def reaches(runs: Sequence[Run], connections: Sequence[int]) -> list[Reach]:
    """With tracing off, throughput that is lost, in per cent of that without."""
    return [
        at_most(f"lost by {USUAL}, {count} connections", MOST_PERCENT,
                lost_percent(runs, USUAL, count, "requests_per_s"), " %")
        for count in connections
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    chosen = options.parser(__doc__ or "", rounds=9, connections="16,64").parse_args(arguments)
    with sink() as port:
        runs = measure(arms(port), chosen.connections, chosen.rounds, chosen.seconds)
    body = {"runs": [asdict(run) for run in runs]}
    found = [table(runs, chosen.connections)]
    report.save("observed", vars(chosen), body, found, reaches(runs, chosen.connections))


if __name__ == "__main__":
    main()
