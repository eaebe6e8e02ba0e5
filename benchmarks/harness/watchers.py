"""Dashboards that are open: each holds the event stream, and asks for parts and charts as its scripts do.

`python -m benchmarks.harness.watchers PORT COUNT` reads the cookie from standard input, writes `watching` once all
streams are open, and at its end, on SIGTERM, how many events and answers came.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys

ASKED = {
    "/dashboard/overview/parts": 10.0,
    "/dashboard/history/changes?span=15m": 30.0,
    "/dashboard/history/requests?span=15m": 15.0,
    "/dashboard/history/latency?span=15m": 15.0,
}
"""After how many seconds each is asked for again (`templates/pages/overview/page.html`, `static/js/charts.js`)."""


class Watchers:
    """All of them, and what came to them."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port = port
        self._cookie = cookie
        self.open = 0
        self.events = 0
        self.answers = 0

    async def watch(self) -> None:
        """One dashboard, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            for path, every_s in ASKED.items():
                group.create_task(self._ask(path, every_s))

    async def _listen(self) -> None:
        reader, writer = await self._connect()
        writer.write(self._request("/dashboard/live"))
        await reader.readuntil(b"\r\n\r\n")
        self.open += 1
        while await reader.readuntil(b"\n\n"):
            self.events += 1

    async def _ask(self, path: str, every_s: float) -> None:
        reader, writer = await self._connect()
        await asyncio.sleep(random.uniform(0, every_s))
        while True:
            writer.write(self._request(path))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            self.answers += 1
            await asyncio.sleep(every_s)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)

    def _request(self, path: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept-Encoding: gzip", f"Cookie: {self._cookie}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def main() -> None:
    """Watch until told to end."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    watchers = Watchers(port, sys.stdin.readline().strip())
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = [asyncio.create_task(watchers.watch()) for _ in range(count)]
    while watchers.open < count:
        await asyncio.sleep(0.05)
        if any(task.done() for task in tasks):
            sys.exit("a dashboard could not be opened")
    print("watching", flush=True)
    await over.wait()
    lost = sum(task.done() for task in tasks)
    print(f"{watchers.events} events, {watchers.answers} answers, {lost} lost", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
