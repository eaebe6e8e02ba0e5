"""A runner in a host process of its own: the process, kept alive, and the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.control.host_log import HostLog
from core.control.host_process import HostProcess
from core.serving.host_client import HostClient
from core.serving.request import SequencePart
from core.serving.run_result import EachResult, RunResult
from core.serving.runner import OnState, RunnerStats
from core.serving.sequences import Hold
from core.serving.trace import Noting
from core.signature import Signature
from core.tasks.base import Prepared

Tensors = Mapping[str, np.ndarray[Any, Any]]


class HostedRunner:
    """A Runner; see there. Closing it ends the process, so all its memory really comes back."""

    def __init__(
        self, name: str, socket_path: Path, job: dict[str, Any], queue_size: int, log: HostLog | None = None
    ) -> None:
        self.socket_path = socket_path
        self.process = HostProcess(name, job, log)
        self._client = HostClient(socket_path, queue_size)

    @property
    def signature(self) -> Signature:
        """Known once started."""
        return self._client.signature

    @property
    def trouble(self) -> str:
        """Why it does not serve now, as a sentence; empty while it does."""
        return self.process.trouble

    async def start(self, on_state: OnState) -> None:
        """Start the process, wait until it has loaded, and connect."""
        await self.process.start(on_state)
        try:
            await self._client.start(on_state)
        except BaseException:
            await self.close()
            raise

    def admit(self, items: int) -> None:
        """See Runner."""
        self._client.admit(items)

    def release(self, items: int) -> None:
        """See Runner."""
        self._client.release(items)

    async def run(
        self,
        inputs: Tensors,
        items: int,
        *,
        priority: int,
        deadline: float,
        sibling: bool = False,
        noting: Noting | None = None,
    ) -> RunResult:
        """See Runner."""
        return await self._client.run(
            inputs, items, priority=priority, deadline=deadline, sibling=sibling, noting=noting
        )

    async def run_each(
        self, prepared: Prepared, *, priority: int, deadline: float, noting: Noting | None = None
    ) -> EachResult:
        """See Runner."""
        return await self._client.run_each(prepared, priority=priority, deadline=deadline, noting=noting)

    async def hold(self, part: SequencePart, deadline: float) -> Hold:
        """See Runner."""
        return await self._client.hold(part, deadline)

    async def stats(self) -> RunnerStats:
        """See Runner."""
        stats = await self._client.stats()
        stats.restarts = self.process.restarts
        return stats

    async def close(self) -> None:
        """See Runner."""
        await self._client.close()
        await self.process.stop()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.socket_path.unlink, missing_ok=True)
