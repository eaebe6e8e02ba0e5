"""What the door costs: the tiny model with rules, limits and usage, against the same build with them off.

`python -m benchmarks.door_cost --seconds 1 --rounds 25 --connections 16,64`

A token is asked for in all of them: there is no serving without. `off` is one that nothing restricts, no rules
about addresses, and usage uncounted, for which `peers/unmetered.py` starts the server, since no setting does.
`rules and limits` restricts the token in every way, none refusing; `usage too` counts what it uses as well, and
is what the aim is about. Changes alone are audited, so the audit log costs a call nothing. `log of calls too`
writes a line for each call besides, as servers do by default.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.harness import load, options, report
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.pulvinar import Installation, PulvinarPeer
from benchmarks.harness.report import Reach, at_most
from benchmarks.harness.server import Server
from benchmarks.harness.workload import TINY, Kind

MOST_PERCENT = 8.0
AIMED_AT = "usage too"
RULES = 5
LIMITED = (
    *("--rate", "100000000/day", "--rate", "10000000/minute", "--max-concurrency", "1000"),
    *("--ip-allow", "127.0.0.0/8,10.0.0.0/8", "--models", "tiny,other-*"),
)
UNMETERED = (sys.executable, "-m", "benchmarks.peers.unmetered")


class Place(Installation):
    """An installation with the log of calls on or off."""

    logs = False

    @property
    def env(self) -> dict[str, str]:
        """What its processes are told."""
        return {**super().env, "PULVINAR_LOG__ACCESS": str(self.logs).lower()}


@dataclass
class Arm(PulvinarPeer):
    """Pulvinar with some of it switched on."""

    limited: bool = False
    counted: bool = False
    logged: bool = False

    def prepare(self, kind: Kind) -> None:
        """A fresh data directory with the model, a token, and rules where they belong to the arm."""
        made = Place(f"door-{self.name.replace(' ', '-')}")
        made.logs = self.logged
        made.add_model_for(kind)
        made.create_token()
        if self.limited:
            made.token = made.cli("token", "create", "--name", "limited", *LIMITED).split()[-1]
            for number in range(RULES):
                made.cli("access-rule", "add", "deny", f"198.51.{number}.0/24", "--scope", "external")
        self.installation = made

    def start(self, kind: Kind, cores: Iterable[int] | None) -> Server:
        """Serve what was prepared."""
        assert self.installation is not None
        if self.counted:
            return self.installation.start(cores)
        return self.installation.start(cores, program=UNMETERED)


def arms() -> list[Arm]:
    """All off, then more and more."""
    return [
        Arm("off"),
        Arm("rules and limits", limited=True),
        Arm("usage too", limited=True, counted=True),
        Arm("log of calls too", limited=True, counted=True, logged=True),
    ]


@dataclass
class Run:
    """One measurement of one arm: throughput, and the server's own CPU time for a request."""

    arm: str
    connections: int
    requests_per_s: float
    cpu_us: float
    failures: int


def measure(compared: Sequence[Arm], connections: Sequence[int], rounds: int, seconds: float) -> list[Run]:
    """All arms in turn, round by round, every server pinned to one core and wrk to the other.

    All of them run all the time, so that the arms of a round follow each other within seconds: a machine that
    others share may be half as fast a minute later.
    """
    for arm in compared:
        arm.prepare(TINY.kind)
    runs = []
    with ExitStack() as stack:
        servers = [(arm, stack.enter_context(arm.start(TINY.kind, [server_core()]))) for arm in compared]
        for arm, server in servers:
            arm.check(server, TINY)
            load.run(server.port, arm.call(TINY), max(connections), 2, [load_core()], warm_up_s=0)
        for number in range(rounds):
            for count in connections:
                for arm, server in servers if number % 2 == 0 else reversed(servers):
                    before = _cpu_s(server)
                    run = load.run(server.port, arm.call(TINY), count, seconds, [load_core()], warm_up_s=0)
                    cpu_us = (_cpu_s(server) - before) / run.requests * 1e6
                    runs.append(Run(arm.name, count, run.requests_per_s, cpu_us, run.failures))
                    print(f"round {number + 1}/{rounds}: {runs[-1]}", flush=True)
    return runs


def _cpu_s(server: Server) -> float:
    times = [process.cpu_times() for process in server.processes()]
    return sum(one.user + one.system for one in times)


def lost_percent(runs: Sequence[Run], arm: str, count: int, figure: str) -> float:
    """What an arm loses against `off`, by the median of the ratios of each round."""
    ratio = median(_ratios(runs, arm, count, figure))
    return (1 - ratio) * 100 if figure == "requests_per_s" else (1 - 1 / ratio) * 100


def _ratios(runs: Sequence[Run], arm: str, count: int, figure: str) -> list[float]:
    of = {name: [getattr(run, figure) for run in runs if (run.arm, run.connections) == (name, count)]
          for name in (arm, "off")}  # fmt: skip
    return [one / other for one, other in zip(of[arm], of["off"], strict=True)]


def reaches(runs: Sequence[Run], connections: Sequence[int]) -> list[Reach]:
    """Throughput that is lost by rules, limits, usage and audit, in per cent of that without."""
    found = []
    for count in connections:
        lost = [(1 - ratio) * 100 for ratio in _ratios(runs, AIMED_AT, count, "requests_per_s")]
        what = f"throughput lost, {count} connections ({report.spread(lost)})"
        found.append(at_most(what, MOST_PERCENT, median(lost), " %"))
    return found


def tables(runs: Sequence[Run], connections: Sequence[int]) -> list[str]:
    """Medians of each arm, and what they lose by throughput and by the server's CPU time a request."""
    rows = []
    for count in connections:
        for arm in (one.name for one in arms()):
            mine = [run for run in runs if (run.arm, run.connections) == (arm, count)]
            lost = [lost_percent(runs, arm, count, figure) for figure in ("requests_per_s", "cpu_us")]
            figures = median(run.requests_per_s for run in mine), median(run.cpu_us for run in mine)
            rows.append(
                [arm, str(count), f"{figures[0]:,.0f}", f"{figures[1]:.1f}", *(f"{one:.1f} %" for one in lost)]
            )
    head = ["", "connections", "requests/s", "CPU µs a request", "throughput lost", "by CPU time"]
    return [report.table(head, rows)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    chosen = options.parser(__doc__ or "", seconds=1, rounds=25, connections="16,64").parse_args(arguments)
    runs = measure(arms(), chosen.connections, chosen.rounds, chosen.seconds)
    body = {"runs": [asdict(run) for run in runs]}
    found = tables(runs, chosen.connections)
    report.save("door_cost", vars(chosen), body, found, reaches(runs, chosen.connections))


if __name__ == "__main__":
    main()
