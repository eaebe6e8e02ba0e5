"""50 dashboards open on live updates while photos are classified, against none.

`python -m benchmarks.watched --seconds 3 --rounds 40 --dashboards 50`

One server on one core; the load and the dashboards share the other. Each dashboard is a browser that has signed in
itself. In each round the same server is measured with and without them, in turn first and last.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.dashboard import sign_in
from benchmarks.harness import load, options, report
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.places import ROOT
from benchmarks.harness.pulvinar import PulvinarPeer
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server, pinned
from benchmarks.harness.workload import photo

MOST_PERCENT = 3.0
PHOTO = photo(640, 480)


@dataclass
class Run:
    """One measurement."""

    watched: bool
    requests_per_s: float
    p99_ms: float
    cpu_ms: float
    """The server's CPU time for a request, what it does for dashboards included."""
    failures: int


def browsers(server: Server, count: int) -> list[str]:
    """The cookies of so many sessions."""
    cookies = []
    for _ in range(count):
        with closing(sign_in(server)) as client:
            cookies.append("; ".join(f"{name}={value}" for name, value in client.cookies.items()))
    return cookies


@contextmanager
def watching(server: Server, cookies: Sequence[str]) -> Iterator[None]:
    """A dashboard for each of these sessions, all of them open."""
    command = [sys.executable, "-m", "benchmarks.harness.watchers", str(server.port)]
    process = subprocess.Popen(
        pinned(command, [load_core()]), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("".join(f"{cookie}\n" for cookie in cookies))
        process.stdin.close()
        assert process.stdout.readline().strip() == "watching", "no dashboard could be opened"
        yield
    finally:
        process.terminate()
        print(f"  {process.stdout.read().strip()}", flush=True)
        process.wait(20)


def measure(rounds: int, seconds: float, connections: int, dashboards: int) -> list[Run]:
    """With and without, in turn."""
    peer = PulvinarPeer()
    peer.prepare(PHOTO.kind)
    assert peer.installation is not None
    peer.installation.more_env["PULVINAR_ACCESS__LOGIN_RATE"] = "1000/minute"
    runs = []
    with peer.start(PHOTO.kind, [server_core()]) as server:
        peer.check(server, PHOTO)
        cookies = browsers(server, dashboards)
        load.run(server.port, peer.call(PHOTO), connections, 2, [load_core()])
        for number in range(rounds):
            for watched in (False, True) if number % 2 == 0 else (True, False):
                if watched:
                    with watching(server, cookies):
                        run = _one(server, peer, watched, seconds, connections)
                else:
                    run = _one(server, peer, watched, seconds, connections)
                runs.append(run)
                print(f"round {number + 1}/{rounds}: {run}", flush=True)
    return runs


def _one(server: Server, peer: PulvinarPeer, watched: bool, seconds: float, connections: int) -> Run:
    before = _cpu_s(server)
    made = load.run(server.port, peer.call(PHOTO), connections, seconds, [load_core()], warm_up_s=0)
    cpu_ms = (_cpu_s(server) - before) / made.requests * 1e3
    return Run(watched, made.requests_per_s, made.p99_ms, cpu_ms, made.failures)


def _cpu_s(server: Server) -> float:
    times = [process.cpu_times() for process in server.processes()]
    return sum(one.user + one.system for one in times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", seconds=3, rounds=40, connections="16")
    parser.add_argument("--dashboards", type=int, default=50)
    chosen = parser.parse_args(arguments)
    runs = measure(chosen.rounds, chosen.seconds, chosen.connections[0], chosen.dashboards)
    alone, seen = ([run for run in runs if run.watched is watched] for watched in (False, True))
    pairs = list(zip(alone, seen, strict=True))
    lost = [(1 - two.requests_per_s / one.requests_per_s) * 100 for one, two in pairs]
    more = [(two.cpu_ms / one.cpu_ms - 1) * 100 for one, two in pairs]
    figures = ("requests_per_s", "p99_ms", "cpu_ms")
    rows = [
        [name, *(f"{median(getattr(run, figure) for run in of):.1f}" for figure in figures)]
        for name, of in (("nobody", alone), (f"{chosen.dashboards} dashboards", seen))
    ]
    found = [report.table(["who watches", "requests/s", "p99 ms", "CPU ms a request"], rows)]
    reaches = [
        at_most(f"throughput lost ({report.spread(lost)})", MOST_PERCENT, median(lost), " %"),
        at_most(f"CPU time more ({report.spread(more)})", MOST_PERCENT, median(more), " %"),
        at_most("failed requests", 0, sum(run.failures for run in runs), ""),
    ]
    report.save("watched", vars(chosen), {"runs": [asdict(run) for run in runs]}, found, reaches)


if __name__ == "__main__":
    main()
