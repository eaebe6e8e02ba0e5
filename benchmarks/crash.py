"""`kill -9` of the engine host under load: does a caller notice, and how soon is the model back?

`python -m benchmarks.crash --kills 5 --connections 16`
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import psutil

from benchmarks.harness import options, report
from benchmarks.harness.client import Sample, Trace, closed_loop, percentile
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.pulvinar import Admin, Installation, engine_host
from benchmarks.harness.report import at_least, at_most
from benchmarks.harness.server import DidNotStart, Server
from benchmarks.harness.svg import line_chart
from benchmarks.harness.workload import Call, photo

BACK_S = 2.0
COME_BACK_S = 20.0


@dataclass(frozen=True)
class Crashes:
    """The whole run, and when the host was killed (`time.monotonic`, seconds)."""

    trace: Trace
    killed: list[float]
    ended: float

    def recoveries_s(self) -> list[float]:
        """From each kill to the end of the longest silence that followed it, within the time up to the next."""
        ends = [*self.killed[1:], self.ended]
        return [self._recovery(start, end) for start, end in zip(self.killed, ends, strict=True)]

    def _recovery(self, start: float, end: float) -> float:
        good = sorted(s.answered for s in self.trace.samples if s.status == 200 and start <= s.answered <= end)
        if not good:
            return end - start
        marks = [start, *good, end]
        gaps = [(later - earlier, later) for earlier, later in pairwise(marks)]
        return max(gaps)[1] - start


async def kill_under_load(server: Server, call: Call, connections: int, kills: int, before: set[int]) -> Crashes:
    """Kill the host every few seconds while all connections ask."""
    stop, killed = asyncio.Event(), []
    task = asyncio.create_task(closed_loop(server.port, call, connections, stop))
    try:
        for _ in range(kills):
            await asyncio.sleep(3)
            host = await _next_host(server, before)
            if host is None:
                break
            killed.append(time.monotonic())
            host.kill()
        await asyncio.sleep(5)
    finally:
        ended = time.monotonic()
        stop.set()
        trace = await task
    return Crashes(trace, killed, ended)


async def _next_host(server: Server, before: set[int]) -> psutil.Process | None:
    """The host, or None where none comes back: then the silence after the last kill tells."""
    with suppress(TimeoutError):
        async with asyncio.timeout(COME_BACK_S):
            while True:
                with suppress(DidNotStart, psutil.NoSuchProcess):
                    return await asyncio.to_thread(engine_host, server, before)
                await asyncio.sleep(0.1)
    return None


def measure(connections: int, kills: int) -> Crashes:
    """A classifier in a host of its own, pinned with its server; the client on the other core."""
    installation = Installation("crash")
    model = installation.add_model_for("classify")
    installation.create_token()
    call = installation.call(photo(640, 480))
    with installation.start([server_core()]) as server, Admin(server.port) as admin:
        before = {process.pid for process in server.processes()}
        admin.deploy(model, version=1, isolation="process")
        engine_host(server, before)
        everything = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {load_core()})
        try:
            return asyncio.run(kill_under_load(server, call, connections, kills, before))
        finally:
            os.sched_setaffinity(0, everything)


def chart(found: Crashes) -> str:
    """Answers a second, in slices of a tenth."""
    start = found.trace.samples[0].sent

    def rate(samples: Sequence[Sample]) -> list[tuple[float, float]]:
        counts: dict[int, int] = {}
        for sample in samples:
            slot = int((sample.answered - start) * 10)
            counts[slot] = counts.get(slot, 0) + 1
        return [(slot / 10, counts.get(slot, 0) * 10) for slot in range(max(counts, default=0) + 1)]

    good = [sample for sample in found.trace.samples if sample.status == 200]
    return line_chart("kill -9 of the engine host", "seconds", "answers/s", {"answered 200": rate(good)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", rounds=1)
    parser.add_argument("--kills", type=int, default=5)
    chosen = parser.parse_args(arguments)
    found = measure(chosen.connections[0], chosen.kills)
    failed = found.trace.count(lambda status: status != 200)
    recoveries = found.recoveries_s()
    slowest = percentile([sample.latency_ms for sample in found.trace.samples], 100) or 0
    rows = [[str(index + 1), f"{seconds:.2f}"] for index, seconds in enumerate(recoveries)]
    report.save(
        "crash",
        vars(chosen),
        {"statuses": found.trace.statuses(), "recovery_s": recoveries, "slowest_ms": slowest},
        [report.table(["kill", "answering again after s"], rows), f"Slowest request: {slowest:.0f} ms."],
        [
            at_least("kills survived", chosen.kills, len(recoveries), ""),
            at_most(f"failed requests in {len(recoveries)} kills", 0, failed, ""),
            at_most("answering again after a kill, slowest", BACK_S, max(recoveries, default=None), " s"),
        ],
        chart(found),
    )


if __name__ == "__main__":
    main()
