"""What a node does for one model, and what it tells about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from core.control.desired import DesiredDeployment
from core.control.hosted import HostedRunner
from core.control.plan import ActualModel
from core.control.rollout import LoadedModel
from core.control.watch import Watch


@dataclass(slots=True)
class ModelState:
    """What this node does for one model, and what it last told the database."""

    model_id: int
    origin: str = ""
    generation: int = 0
    state: str = "pending"
    reason: str = ""
    attempts: int = 0
    retry_at: float = 0.0
    removing: bool = False
    task: asyncio.Task[None] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one task that loads or removes; an older one may still be clearing up after itself."""
    loaded: LoadedModel = field(default_factory=LoadedModel)
    loading: tuple[int, str] | None = None
    """The version being brought up, and how far it is."""
    draining: list[int] = field(default_factory=list)
    """Versions whose last requests are being answered."""
    watch: Watch | None = None
    watching: asyncio.Task[None] | None = None
    trouble: str = ""
    """What is wrong with the processes of versions that serve, as sentences; empty while nothing is."""
    restarts: dict[int, int] = field(default_factory=dict)
    """How often the process of a version that serves was started again, where it was."""
    resting: DesiredDeployment | None = None
    """What is idle: desired, and in no memory."""
    wanted: bool = False
    """Callers wait for what is idle, or is about to be."""
    unloading: bool = False
    in_line: bool = False
    """Waiting for room in memory."""
    reserved_bytes: int = 0
    """Memory set aside for what is being loaded."""
    sizes: dict[int, int] = field(default_factory=dict)
    """What each version took in memory when it was loaded with the options of `sized`, in bytes."""
    sized: tuple[Any, ...] = ()
    dirty: bool = True

    def known_sizes(self, load_key: tuple[Any, ...]) -> dict[int, int]:
        """What versions took when they were loaded with these options; to be added to."""
        if self.sized != load_key:
            self.sized, self.sizes = load_key, {}
        return self.sizes

    def actual(self) -> ActualModel:
        """As the plan sees it."""
        return ActualModel(
            self.generation,
            self.origin,
            busy=self.task is not None,
            failed=self.state == "failed",
            retry_at=self.retry_at,
            removing=self.removing,
        )

    async def in_turn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait until the action before, which was cancelled, has cleared up after itself; then do this."""
        async with self.turn:
            await work()

    def note(self, state: str, reason: str = "") -> None:
        """Be in this state from now on."""
        self.state, self.reason, self.dirty = state, reason, True

    def look_at_hosts(self) -> None:
        """Note what has become of the processes of versions in memory since the last look."""
        runners = {number: held.deployment.runner for number, held in self.loaded.versions.items()}
        hosted = {number: runner for number, runner in runners.items() if isinstance(runner, HostedRunner)}
        trouble = " ".join(f"Version {n}: {one.trouble}" for n, one in sorted(hosted.items()) if one.trouble)
        restarts = {number: one.process.restarts for number, one in hosted.items() if one.process.restarts}
        if (trouble, restarts) != (self.trouble, self.restarts):
            self.trouble, self.restarts, self.dirty = trouble, restarts, True

    def observed_reason(self) -> str:
        """Why it is in its state, and what is wrong though it serves."""
        held = sorted(self.loaded.versions.items())
        notes = [f"Version {number}: {one.deployment.note}" for number, one in held if one.deployment.note]
        return " ".join(part for part in (self.reason, *notes, self.trouble) if part)

    def stop_watching(self) -> None:
        """End the watch over the last rollout."""
        if self.watching is not None:
            self.watching.cancel()
        self.watch = self.watching = None

    def sentence(self) -> str:
        """The state, with its reason."""
        return f"{self.state}: {self.reason}" if self.reason else self.state

    def versions(self) -> list[dict[str, Any]]:
        """Every version in memory, or on its way there, and what it is there for."""
        applied = self.loaded.applied
        shares = applied.traffic if applied is not None else ()
        rows: list[dict[str, Any]] = [
            {
                "version": share.version,
                "state": "serving" if share.mode == "live" else "shadow",
                "weight": share.weight,
            }
            for share in shares
        ]
        for row in rows:
            if row["version"] in self.restarts:
                row["restarts"] = self.restarts[row["version"]]
        rows += [{"version": version, "state": "standby"} for version in self.loaded.standby]
        for row in rows:
            row.update(self._memory_of(row["version"]))
        if self.resting is not None and self.loading is None:
            rows += [_idle_row(version, self.sizes.get(version)) for version in self.resting.versions]
        if self.loading is not None:
            rows.append({"version": self.loading[0], "state": self.loading[1]})
        rows += [{"version": version, "state": "draining"} for version in self.draining]
        return sorted(rows, key=lambda row: int(str(row["version"])))

    def _memory_of(self, version: int) -> dict[str, int]:
        held = self.loaded.versions.get(version) or self.loaded.standby.get(version)
        if held is None or not held.memory_bytes:
            return {}
        found = {"memory_bytes": held.memory_bytes}
        return found if held.gpu_bytes is None else {**found, "gpu_memory_bytes": held.gpu_bytes}


def _idle_row(version: int, size_bytes: int | None) -> dict[str, Any]:
    row = {"version": version, "state": "idle"}
    return row if size_bytes is None else {**row, "memory_bytes": size_bytes}
