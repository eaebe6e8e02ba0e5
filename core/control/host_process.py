"""Keeps an engine host's process alive: starts it, follows its log, starts it again with back-off.

The child ends with its parent in two ways: the kernel kills it when the parent dies, and its standard input, a
pipe that the parent alone holds open, ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import structlog

from core.control.host_log import HostLog
from core.control.host_main import HUNG
from core.errors import LoadFailed

log = structlog.get_logger(__name__)

CRASH_FIRST_S, CRASH_MOST_S = 0.05, 1.0
"""Back-off of a host that dies while it serves; the first time it is started again at once."""
LOAD_FIRST_S, LOAD_MOST_S = 0.5, 30.0
"""Back-off of one that cannot be started again."""
STABLE_S = 10.0
STOP_S = 2.0
LOG_END_S = 1.0
LOAD_TIMEOUT_S = 600.0
_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path.insert(0, sys.argv[1]); from core.control.host_main import main; main()"

OnState = Callable[[str], None]


class HostProcess:
    """One host, kept running until `stop`. `job` is what the child reads from its standard input."""

    def __init__(self, name: str, job: dict[str, Any], log: HostLog | None = None) -> None:
        self.name = name
        self.restarts = 0
        self.failed_starts = 0
        """How often in a row it could not be started again."""
        self.log = log or HostLog()
        self.last_death = ""
        """How it ended the last time, in words."""
        self.trouble = ""
        """Why it does not serve now, as a sentence; empty while it does."""
        self.on_change: Callable[[], None] | None = None
        """Called when it goes and when it is back."""
        self._job = job
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._process.pid if self._process is not None else None

    async def start(self, on_state: OnState) -> None:
        """Start the host and wait until it is ready. Raises LoadFailed with its own words; nothing is left."""
        try:
            process = await self._spawn(on_state)
        except BaseException:
            await self._end()
            raise
        self._keeper = asyncio.create_task(self._keep(process), name=f"host {self.name}")

    async def stop(self) -> None:
        """End the host; nothing of it is left afterwards."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            self.log.note("The process is being ended.")
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._end()
        self._job = {}  # it has an example of the model's inputs

    async def _keep(self, process: Process) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            code = await process.wait()
            await self._end()
            deaths = 1 if time.monotonic() - began > STABLE_S else deaths + 1
            self.restarts += 1
            self.last_death = _words(code)
            self.log.note(f"The process {self.last_death}; it is being started again.")
            log.warning("host.died", host=self.name, cause=self.last_death, log=self.log.last(3))
            self._change(f"Its process {self.last_death} and is being started again.")
            await asyncio.sleep(crash_backoff_s(deaths))
            process = await self._spawn_again()
            self._change("")

    async def _spawn_again(self) -> Process:
        wait_s = LOAD_FIRST_S
        while True:
            try:
                process = await self._spawn(lambda state: None)
                self.failed_starts = 0
                return process
            except LoadFailed as error:
                message = error.message
            except Exception:  # no process to be had, for one: whatever it is, the next try may work
                log.exception("host.not_started", host=self.name)
                message = "The process could not be started; the server's log has the trace."
            self.failed_starts += 1
            await self._end()
            log.warning("host.not_ready", host=self.name, cause=message, again_s=wait_s)
            self._change(f"Its process {self.last_death} and does not start again: {message}")
            await asyncio.sleep(wait_s)
            wait_s = min(LOAD_MOST_S, wait_s * 2)

    def _change(self, trouble: str) -> None:
        self.trouble = trouble
        if self.on_change is not None:
            self.on_change()

    async def _spawn(self, on_state: OnState) -> Process:
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _START, str(_ROOT)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment(),
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        self.log.note(f"Process {process.pid} began.")
        self._reader = asyncio.create_task(self.log.follow(process.stderr), name=f"log of {self.name}")
        process.stdin.write(orjson.dumps(self._job) + b"\n")
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await process.stdin.drain()
                await self._wait_ready(process, on_state)
        except TimeoutError as error:
            raise LoadFailed(f"The model did not load within {LOAD_TIMEOUT_S:g} seconds.") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise LoadFailed(await self._obituary(process)) from error
        return process

    async def _wait_ready(self, process: Process, on_state: OnState) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            said = orjson.loads(line)
            if said["state"] == "ready":
                return
            if said["state"] == "failed":
                raise LoadFailed(said["message"])
            on_state(said["state"])
        raise LoadFailed(await self._obituary(process))

    async def _obituary(self, process: Process) -> str:
        """How a host ended that was never ready, with the last that it said."""
        code = await process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=LOG_END_S)
        self.log.note(f"The process {_words(code)} before it had loaded.")
        return f"The model's process {_words(code)} while loading. {self.log.summary()}".strip()

    async def _end(self) -> None:
        """End the process and all its descendants; cancelled or not, nothing is left running."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.stdin is not None:
                process.stdin.close()
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=LOG_END_S)
            self._reader.cancel()


def crash_backoff_s(deaths: int) -> float:
    """How long to wait after so many deaths, none of which came long after the one before."""
    return 0.0 if deaths < 2 else min(CRASH_MOST_S, CRASH_FIRST_S * 2 ** min(deaths - 2, 10))


def _environment() -> dict[str, str]:
    """The server's environment without its secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PULVINAR_")}


def _words(code: int) -> str:
    if code == HUNG:
        return "was ended because a batch did not come back"
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
