"""Dashboards that are open: each holds the event stream, and asks for parts and charts as its scripts do.

`python -m benchmarks.harness.watchers PORT` reads cookies from standard input, a line for each dashboard, writes
`watching` once all streams are open, and at its end, on SIGTERM, how many events and answers came.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
from dataclasses import dataclass

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PARTS = "/dashboard/overview/parts"
CHARTS = (
    "/dashboard/history/changes?span=15m",
    "/dashboard/history/requests?span=15m",
    "/dashboard/history/latency?span=15m",
)
ASKED = {PARTS: 20.0, **dict.fromkeys(CHARTS, 120.0)}
"""After how many seconds each is asked for again where nothing happens (`templates/pages/overview/page.html`,
`static/js/charts.js`)."""
REST_S = 5.0
"""So long nothing is asked for again, whatever happens (`static/js/live.js`)."""
_EDITION = re.compile(rb'"parts":"([0-9a-f]*)"')


@dataclass
class Came:
    """What came to all of them."""

    open: int = 0
    events: int = 0
    answers: int = 0


class Watcher:
    """One dashboard."""

    def __init__(self, port: int, cookie: str, came: Came) -> None:
        self._port = port
        self._cookie = cookie
        self._came = came
        self._changed = asyncio.Event()

    async def watch(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            for path, every_s in ASKED.items():
                group.create_task(self._ask(path, every_s))
            group.create_task(self._renew())

    async def _listen(self) -> None:
        reader, writer = await self._connect()
        writer.write(self._request("/dashboard/live"))
        await reader.readuntil(b"\r\n\r\n")
        self._came.open += 1
        edition = None
        while event := await reader.readuntil(b"\n\n"):
            self._came.events += 1
            said = _EDITION.search(event)
            if said and edition not in (None, said[1]):
                self._changed.set()
            edition = said[1] if said else edition

    async def _renew(self) -> None:
        connection = await self._connect()
        while await self._changed.wait():
            await asyncio.sleep(REST_S)
            self._changed.clear()
            for path in (PARTS, *CHARTS):
                await self._get(connection, path)

    async def _ask(self, path: str, every_s: float) -> None:
        connection = await self._connect()
        await asyncio.sleep(random.uniform(0, every_s))
        while True:
            await self._get(connection, path)
            await asyncio.sleep(every_s)

    async def _get(self, connection: Connection, path: str) -> None:
        reader, writer = connection
        writer.write(self._request(path))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        self._came.answers += 1

    async def _connect(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)

    def _request(self, path: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept-Encoding: gzip", f"Cookie: {self._cookie}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def main() -> None:
    """Watch until told to end."""
    port, cookies, came = int(sys.argv[1]), sys.stdin.read().split("\n")[:-1], Came()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = [asyncio.create_task(Watcher(port, cookie, came).watch()) for cookie in cookies]
    while came.open < len(cookies):
        await asyncio.sleep(0.05)
        if any(task.done() for task in tasks):
            sys.exit("a dashboard could not be opened")
    print("watching", flush=True)
    await over.wait()
    lost = sum(task.done() for task in tasks)
    print(f"{came.events} events, {came.answers} answers, {lost} lost", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
