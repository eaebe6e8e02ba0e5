"""Three times more load than capacity over 1,000 connections: goodput, refusals, memory.

The classifier is asked, because there the model is the bottleneck and refusing is cheap beside answering. Its peak
is measured with as many connections as keep it busy; then requests come at three times that rate, whatever is
answered.

`python -m benchmarks.overload --seconds 20 --connections 1000 --times 3`
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from statistics import mean

from benchmarks.harness import load, options, report
from benchmarks.harness.client import BROKEN, Trace, open_loop, percentile
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import Reach, at_least, at_most
from benchmarks.harness.server import Server
from benchmarks.harness.svg import line_chart
from benchmarks.harness.workload import Call, photo

GOODPUT, REFUSED_MS, GROWTH = 0.9, 50.0, 1.05
PEAK_CONNECTIONS = (16, 64)
Memory = list[tuple[float, float]]


def refused(status: int) -> bool:
    """429 and 503 are refusals; the rest are answers or failures."""
    return status in (429, 503)


async def overload(
    server: Server, call: Call, connections: int, rate: float, seconds: float
) -> tuple[Trace, Memory]:
    """The open loop, and the server's memory (seconds, bytes) twice a second beside it."""
    began, memory, over = time.monotonic(), [], asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            memory.append((time.monotonic() - began, float(await asyncio.to_thread(server.rss_bytes))))
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        trace = await open_loop(server.port, call, connections, rate, seconds)
        over.set()
    return trace, memory


def goodput(trace: Trace, seconds: float) -> float:
    """Answers of 200 a second, while the load lasted; those of the queue that empties afterwards do not count."""
    start = trace.samples[0].sent if trace.samples else 0.0
    start = min((sample.sent for sample in trace.samples), default=start)
    in_time = [one for one in trace.samples if one.status == 200 and one.answered <= start + seconds]
    return len(in_time) / seconds


def growth(memory: Memory) -> float | None:
    """Memory in the last fifth of the time over that in the second fifth, when queues and caches are full."""
    fifth = len(memory) // 5
    if not fifth:
        return None
    return mean(size for _, size in memory[-fifth:]) / mean(size for _, size in memory[fifth : 2 * fifth])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", seconds=20, rounds=1, connections="1000")
    parser.add_argument("--times", type=float, default=3, help="load as a multiple of the peak")
    chosen = parser.parse_args(arguments)
    installation = Installation("overload")
    installation.add_model_for("classify")
    installation.create_token()
    call = installation.call(photo(640, 480))
    with installation.start([server_core()]) as server:
        runs = [load.run(server.port, call, count, 5, [load_core()]) for count in PEAK_CONNECTIONS]
        peak = max(run.requests_per_s for run in runs)
        everything = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {load_core()})
        try:
            rate = peak * chosen.times
            trace, memory = asyncio.run(overload(server, call, chosen.connections[0], rate, chosen.seconds))
        finally:
            os.sched_setaffinity(0, everything)
    _report(vars(chosen), peak, trace, memory, chosen.seconds)


def _report(settings: dict[str, object], peak: float, trace: Trace, memory: Memory, seconds: float) -> None:
    good = goodput(trace, seconds)
    refusals = trace.latencies_ms(refused)
    answers = trace.latencies_ms(lambda status: status == 200)
    failed = trace.count(lambda status: status != 200 and not refused(status))
    figures = {
        "peak_per_s": peak,
        "goodput_per_s": good,
        "refusals": len(refusals),
        "refusal_p50_ms": percentile(refusals, 50),
        "refusal_p99_ms": percentile(refusals, 99),
        "answer_p50_ms": percentile(answers, 50),
        "answer_p99_ms": percentile(answers, 99),
        "failed": failed,
        "broken": trace.count(lambda status: status == BROKEN),
        "unsent": trace.unsent,
        "memory_growth": growth(memory),
        "memory_most_bytes": max((size for _, size in memory), default=0.0),
    }
    aims: list[Reach] = [
        at_least("goodput over peak", GOODPUT, good / peak),
        at_most("refusals, p99", REFUSED_MS, figures["refusal_p99_ms"], " ms"),
        at_most("memory, last fifth over second fifth", GROWTH, figures["memory_growth"]),
        at_most("failed otherwise", 0, failed, ""),
    ]
    rows = [[name, "–" if value is None else f"{value:,.2f}"] for name, value in figures.items()]
    megabytes = [(at, size / 1e6) for at, size in memory]
    report.save(
        "overload",
        settings,
        {**figures, "statuses": trace.statuses(), "memory": memory},
        [report.table(["figure", "value"], rows)],
        aims,
        line_chart("Memory under three times the load", "seconds", "MB", {"resident": megabytes}),
    )


if __name__ == "__main__":
    main()
