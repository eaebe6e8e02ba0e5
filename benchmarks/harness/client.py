"""A client that knows when each request was due, sent and answered, which `wrk` does not tell.

HTTP/1.1 with keep-alive, and answers that carry a Content-Length: no more is needed here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle

from benchmarks.harness.workload import Call

BROKEN = 0
"""The status of a request whose connection broke or could not be made."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request; times are of `time.monotonic`, in seconds."""

    sent: float
    answered: float
    status: int

    @property
    def latency_ms(self) -> float:
        """From sending to the answer's last byte."""
        return (self.answered - self.sent) * 1e3


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value that `percent` of the values do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def encode(call: Call) -> bytes:
    """The call as it goes over the wire."""
    headers = {"Host": "127.0.0.1", "Content-Length": str(len(call.body)), **call.headers}
    lines = [f"POST {call.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + call.body


class _Connection:
    """One keep-alive connection, opened again after it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, wire: bytes) -> Sample:
        """Send and wait. A broken connection is a sample with status BROKEN."""
        sent = time.monotonic()
        try:
            async with asyncio.timeout(60):
                status = await self._exchange(wire)
        except (OSError, EOFError, ValueError, TimeoutError):
            self.close()
            status = BROKEN
        return Sample(sent, time.monotonic(), status)

    async def _exchange(self, wire: bytes) -> int:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        self._writer.write(wire)
        # A refusal may come before the whole body was taken: read without waiting for the send buffer to empty.
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await self._reader.readexactly(int(length))
        if b"connection: close" in head:
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        """Let go of the socket."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
        self._reader = self._writer = None


@dataclass
class Trace:
    """All samples of a run, and how often no connection was free when a request was due."""

    samples: list[Sample] = field(default_factory=list)
    unsent: int = 0

    def latencies_ms(self, wanted: Callable[[int], bool]) -> list[float]:
        """Latencies of the answers whose status is wanted."""
        return [sample.latency_ms for sample in self.samples if wanted(sample.status)]

    def count(self, wanted: Callable[[int], bool]) -> int:
        """How many answers have a wanted status."""
        return sum(1 for sample in self.samples if wanted(sample.status))

    def statuses(self) -> dict[str, int]:
        """How many of each status."""
        found: dict[str, int] = {}
        for sample in self.samples:
            found[str(sample.status)] = found.get(str(sample.status), 0) + 1
        return found


async def closed_loop(port: int, call: Call, connections: int, stop: asyncio.Event) -> Trace:
    """Each connection asks again as soon as it is answered, until `stop` is set."""
    trace, wire = Trace(), encode(call)

    async def caller() -> None:
        connection = _Connection(port)
        while not stop.is_set():
            sample = await connection.ask(wire)
            trace.samples.append(sample)
            if sample.status == BROKEN:
                await asyncio.sleep(0.01)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())
    return trace


async def closed_loop_of(port: int, calls: Sequence[Call], connections: int, stop: asyncio.Event) -> Trace:
    """As `closed_loop`, each time with the next of several calls, of different paths, round and round."""
    trace = Trace()
    wires = {path: encode(call) for path, call in {call.path: call for call in calls}.items()}
    order = cycle([wires[call.path] for call in calls])

    async def caller() -> None:
        connection = _Connection(port)
        while not stop.is_set():
            sample = await connection.ask(next(order))
            trace.samples.append(sample)
            if sample.status == BROKEN:
                await asyncio.sleep(0.01)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())
    return trace


async def open_loop(port: int, call: Call, connections: int, rate: float, seconds: float) -> Trace:
    """`rate` requests a second whatever the answers, over at most `connections` connections."""
    trace, wire = Trace(), encode(call)
    idle = deque(_Connection(port) for _ in range(connections))

    async def one(connection: _Connection) -> None:
        trace.samples.append(await connection.ask(wire))
        idle.append(connection)

    began = time.monotonic()
    due = 0
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic() - began) < seconds:
            while due < now * rate:
                due += 1
                if idle:
                    # The one that waited longest, so that all of them are kept in use.
                    group.create_task(one(idle.popleft()))
                else:
                    trace.unsent += 1
            await asyncio.sleep(0.001)
    for connection in idle:
        connection.close()
    return trace
