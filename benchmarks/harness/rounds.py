"""Interleaved rounds A B C A B C, one server alive at a time, so that the machine's moods meet all alike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.harness import load
from benchmarks.harness.environments import InstallFailed
from benchmarks.harness.load import LoadFailed, Measured
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.peers import Peer, WrongAnswer
from benchmarks.harness.server import DidNotStart
from benchmarks.harness.workload import Workload

Key = tuple[str, str, int]
"""Peer, workload, connections."""

REFUSED = (InstallFailed, DidNotStart, WrongAnswer, LoadFailed, OSError)


@dataclass
class Comparison:
    """All runs of all peers, and why some have none."""

    runs: dict[Key, list[Measured]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def median(self, peer: str, workload: str, connections: int) -> Measured | None:
        """Each figure's median over the rounds; counts of failures are added up."""
        runs = self.runs.get((peer, workload, connections))
        if not runs:
            return None
        middle = {name: median(getattr(run, name) for run in runs) for name in Measured.__dataclass_fields__}
        failures = {name: sum(getattr(run, name) for run in runs) for name in ("non_2xx", "errors", "requests")}
        return Measured(**{**middle, **failures})

    def ratio(self, peer: str, other: str, workload: str, connections: int) -> float | None:
        """Throughput of one over the other's: the median of the ratios of each round."""
        pairs = zip(
            self.runs.get((peer, workload, connections), []),
            self.runs.get((other, workload, connections), []),
            strict=False,
        )
        ratios = [one.requests_per_s / two.requests_per_s for one, two in pairs if two.requests_per_s]
        return median(ratios) if ratios else None

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        runs = [
            {"peer": peer, "workload": workload, "connections": connections, "round": index + 1, **run.to_json()}
            for (peer, workload, connections), measured in self.runs.items()
            for index, run in enumerate(measured)
        ]
        return {"runs": runs, "absent": self.absent, "versions": self.versions}


def compare(
    peers: Sequence[Peer], workloads: Sequence[Workload], connections: Sequence[int], rounds: int, seconds: float
) -> Comparison:
    """Measure all peers in turn, the server pinned to one core and wrk to another."""
    found = Comparison()
    for index in range(rounds):
        for peer in peers:
            if peer.name in found.absent:
                continue
            print(f"round {index + 1}/{rounds}: {peer.name}", flush=True)
            try:
                _measure(peer, workloads, connections, seconds, found)
            except REFUSED as error:
                found.absent[peer.name] = f"{type(error).__name__}: {error}"
                print(f"  {peer.name}: {found.absent[peer.name]}", flush=True)
    return found


def _measure(
    peer: Peer, workloads: Sequence[Workload], connections: Sequence[int], seconds: float, found: Comparison
) -> None:
    kind = workloads[0].kind
    if peer.name not in found.versions:
        peer.prepare(kind)
        found.versions[peer.name] = peer.versions()
    with ExitStack() as stack:
        server = stack.enter_context(peer.start(kind, [server_core()]))
        for workload in workloads:
            peer.check(server, workload)
            for count in connections:
                run = load.run(server.port, peer.call(workload), count, seconds, [load_core()])
                found.runs.setdefault((peer.name, workload.name, count), []).append(run)
                print(
                    f"  {workload.name} c={count}: {run.requests_per_s:,.0f}/s p50 {run.p50_ms:.2f} ms "
                    f"p99 {run.p99_ms:.2f} ms failures {run.failures}",
                    flush=True,
                )
