"""8 WebSocket streams of 640x480 frames: is the order kept, does memory stay, how late is the 99th of a hundred?

`python -m benchmarks.streams --seconds 120 --streams 8 --rate 5`

Each stream sends frames at its rate, or as fast as it is let (`--rate 0`). Memory is the server's resident size,
looked at twice a second; the first tenth of the time is left out, when pools and caches fill. No stream has more
than 8 frames unanswered. `--max-batch 1` tells the streams' own memory from that of batches, whose buffers the C
library keeps.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks import models
from benchmarks.harness import options, report
from benchmarks.harness.client import percentile
from benchmarks.harness.machine import server_core
from benchmarks.harness.pulvinar import Admin, Installation
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server

MIB = 1 << 20
LOOK_EVERY_S = 0.5
AHEAD = 8
"""Frames that a stream may have sent without an answer: what lies in sockets would only be older."""


@dataclass
class Stream:
    """What one stream has seen."""

    sent_at: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    out_of_order: int = 0
    failed: int = 0
    statistics: dict[str, Any] = field(default_factory=dict)
    ahead: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AHEAD))


async def send(
    socket: ClientConnection, stream: Stream, frames: Sequence[bytes], rate: float, until: float
) -> None:
    """Frames until the time is up, then the end."""
    began, number = time.monotonic(), 0
    while time.monotonic() < until:
        if rate:
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        await stream.ahead.acquire()
        stream.sent_at.append(time.monotonic())
        await socket.send(frames[number % len(frames)])
        number += 1
    await socket.send('{"type": "end"}')


async def receive(socket: ClientConnection, stream: Stream) -> None:
    """Answers until the server closes."""
    expected = 1
    async for message in socket:
        said = json.loads(message)
        if said.get("type") == "statistics":
            stream.statistics = said
            continue
        stream.ahead.release()
        stream.out_of_order += said["frame"] != expected
        stream.failed += "error" in said
        stream.latencies_ms.append((time.monotonic() - stream.sent_at[said["frame"] - 1]) * 1000)
        expected = said["frame"] + 1


async def run(server: Server, token: str, chosen: Any) -> tuple[list[Stream], list[int]]:
    """All streams side by side, and the server's memory meanwhile."""
    frames = [models.jpeg(640, 480, photo).read_bytes() for photo in ("chelsea", "coffee", "rocket")]
    url = f"ws://127.0.0.1:{server.port}/api/v1/stream/classifier"
    until = time.monotonic() + chosen.seconds
    streams = [Stream() for _ in range(chosen.streams)]

    async def one(stream: Stream) -> None:
        headers = {"X-Access-Token": token}
        async with connect(
            url, additional_headers=headers, compression=None, ping_interval=None, proxy=None
        ) as socket:
            await asyncio.gather(send(socket, stream, frames, chosen.rate, until), receive(socket, stream))

    resident: list[int] = []

    async def watch() -> None:
        while True:
            resident.append(server.rss_bytes())
            await asyncio.sleep(LOOK_EVERY_S)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(one, streams))
    watching.cancel()
    return streams, resident


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", seconds=120, rounds=1, connections="8")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument(
        "--rate", type=float, default=5, help="frames a second of each stream; 0 is as fast as it goes"
    )
    parser.add_argument("--max-batch", type=int, help="of the deployment, in the place of its default")
    chosen = parser.parse_args(arguments)
    installation = Installation("streams")
    installation.add_model("classifier", models.classifier_package())
    token = installation.create_token()
    with installation.start([server_core()]) as server:
        if chosen.max_batch:
            with Admin(server.port) as admin:
                admin.deploy("classifier", version=1, max_batch=chosen.max_batch)
        streams, resident = asyncio.run(run(server, token, chosen))
    latencies = [ms for stream in streams for ms in stream.latencies_ms]
    settled = resident[len(resident) // 10 :]
    quarter = max(1, len(settled) // 4)
    growth = median(settled[-quarter:]) / median(settled[:quarter])
    frames = sum(len(stream.latencies_ms) for stream in streams)
    found = {
        "frames": frames,
        "frames_per_second": frames / chosen.seconds,
        "out_of_order": sum(stream.out_of_order for stream in streams),
        "failed": sum(stream.failed for stream in streams),
        "unanswered": sum(len(stream.sent_at) - len(stream.latencies_ms) for stream in streams),
        **{f"p{percent}_ms": percentile(latencies, percent) for percent in (50, 95, 99)},
        "resident_first_bytes": median(settled[:quarter]),
        "resident_last_bytes": median(settled[-quarter:]),
        "resident_peak_bytes": max(settled),
        "growth": growth,
    }
    rows = [
        ["streams, frames a second of each asked for", f"{chosen.streams}, {chosen.rate or 'as many as go'}"],
        ["frames answered, a second", f"{frames:,}, {found['frames_per_second']:.1f}"],
        ["from sending to answer, p50 / p95 / p99", " / ".join(
            f"{found[f'p{percent}_ms']:.0f}" for percent in (50, 95, 99)) + " ms"],
        ["resident: first quarter, last quarter, peak", " / ".join(
            f"{found[f'resident_{key}_bytes'] / MIB:.0f}" for key in ("first", "last", "peak")) + " MiB"],
    ]  # fmt: skip
    report.save(
        "streams",
        vars(chosen),
        found,
        [report.table(["what", "measured"], rows)],
        [
            at_most("frames out of order, failed or unanswered", 0,
                    found["out_of_order"] + found["failed"] + found["unanswered"], ""),
            at_most("resident memory, last quarter over the first", 1.05, growth),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
