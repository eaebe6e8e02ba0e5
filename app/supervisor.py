"""Keeps the HTTP workers of `--workers N`: starts them, replaces those that die, and all of them on a reload."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import SecretStr

from core.access.limits import SharedLimits
from core.access.places import MAX_PROCESSES
from core.control.publisher import Publisher
from core.logs import set_up_logs
from core.settings import InvalidSettings, Settings

log = structlog.get_logger(__name__)

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.05, 10.0
STABLE_S = 10.0
READY_S = 60.0
TRIES = 3
"""A new worker that has died so often before it was ready ends a reload; those there were go on."""
KILL_MARGIN_S = 5.0
_ROOT = Path(__file__).resolve().parents[1]
_START = "import sys; sys.path.insert(0, sys.argv[1]); from app.worker import main; main()"


class Supervisor:
    """`run` returns once all workers have ended after a stop."""

    def __init__(
        self, settings: Settings, listener: socket.socket, publisher: Publisher, limits: SharedLimits
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._numbers: dict[str, int] = {}
        """Of each worker among those who share the limits."""
        self._listener = listener
        self._publisher = publisher
        self._processes: dict[str, Process] = {}
        self._ready: dict[str, asyncio.Future[bool]] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._made = 0
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()
        publisher.on_worker = lambda name: self._settle(name, True)

    async def run(self) -> None:
        """Start the workers, and wait for the stop and for their end."""
        for _ in range(self._settings.server.workers):
            self._add()
        await self.stopping.wait()
        log.info("server.stopping", workers=len(self._processes))
        tasks = [*self._reloads, *self._keepers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(process) for process in self._processes.values()))

    def reload_soon(self, read_settings: Callable[[], Settings]) -> None:
        """Begin a reload, from a signal."""
        task = asyncio.create_task(self._reload_logged(read_settings), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def reload(self, read_settings: Callable[[], Settings]) -> None:
        """Read the settings and replace the workers one after the other; none is missing meanwhile."""
        async with self._reloading:
            try:
                settings = await asyncio.to_thread(read_settings)
            except InvalidSettings as error:
                log.error("settings.refused", reason=str(error))
                return
            before, self._settings = self._settings, settings
            if not await self._replace_all(settings.server.workers):
                self._settings = before
                log.error("reload.given_up", reason="A worker does not start with the new settings; see above.")
                return
            set_up_logs(settings.log, prod=settings.server.prod)
            log.info("server.reloaded", workers=len(self._keepers))

    async def _reload_logged(self, read_settings: Callable[[], Settings]) -> None:
        try:
            await self.reload(read_settings)
        except Exception:
            log.exception("reload.failed")

    async def _replace_all(self, count: int) -> bool:
        """False, with the old workers kept, when a new one does not come up."""
        old = list(self._keepers)
        for _ in range(count):
            name = self._add()
            if not await self._comes_up(name):
                await self._retire(name)
                return False
            if old:
                await self._retire(old.pop())
        for name in old:
            await self._retire(name)
        return True

    def _add(self) -> str:
        self._made += 1
        name = f"worker-{self._made}"
        self._ready[name] = asyncio.get_running_loop().create_future()
        self._numbers[name] = min(set(range(MAX_PROCESSES)) - set(self._numbers.values()))
        self._keepers[name] = asyncio.create_task(self._keep(name), name=name)
        return name

    async def _keep(self, name: str) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            try:
                code: int | None = await self._live(name)
            except OSError:
                log.exception("worker.not_started", worker=name)
                code = None
            deaths = 1 if time.monotonic() - began > STABLE_S else deaths + 1
            self._limits.clear(self._numbers[name])
            log.warning("worker.died", worker=name, code=code)
            if deaths == TRIES:
                self._settle(name, False)
            await asyncio.sleep(backoff_s(deaths))

    async def _live(self, name: str) -> int:
        """One life of a worker, from its start to its end; answers its exit code."""
        fd = self._listener.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _START, str(_ROOT)), stdin=PIPE, pass_fds=(fd, self._limits.fd)
        )
        self._processes[name] = process
        job = {
            "settings": plain_settings(self._settings),
            "origins": dict(self._settings.origins),
            "name": name,
            "control": str(self._publisher.path),
            "fd": fd,
            "limits": {"fd": self._limits.fd, "slots": self._limits.slots, "process": self._numbers[name]},
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(orjson.dumps(job) + b"\n")
            await process.stdin.drain()
        # It stays open: its end tells the worker that this process is gone.
        return await process.wait()

    def _settle(self, name: str, ready: bool) -> None:
        future = self._ready.get(name)
        if future is not None and not future.done():
            future.set_result(ready)

    async def _comes_up(self, name: str) -> bool:
        try:
            async with asyncio.timeout(READY_S):
                return await self._ready[name]
        except TimeoutError:
            log.error("worker.not_ready", worker=name)
            return False

    async def _retire(self, name: str) -> None:
        keeper = self._keepers.pop(name)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        del self._ready[name]
        if name in self._processes:
            await self._end(self._processes[name])
            del self._processes[name]
        self._limits.clear(self._numbers.pop(name))

    async def _end(self, process: Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._settings.server.drain_s + KILL_MARGIN_S):
                await process.wait()
        except TimeoutError:
            log.error("worker.killed", pid=process.pid)
            process.kill()
            await process.wait()


def backoff_s(deaths: int) -> float:
    """How long to wait after so many deaths, none of which came long after the one before."""
    return 0.0 if deaths < 2 else min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(deaths, 10))


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings as JSON, secrets in clear: for a worker's standard input and nothing else."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        return str(value) if isinstance(value, Path) else value

    result: dict[str, Any] = plain(settings.model_dump())
    return result
