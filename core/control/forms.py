"""Looks after versions that run in the form a search recommends: one that fails there goes back to its upload."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from core.control.following import fall_back
from core.control.form_health import MIN_REQUESTS, WINDOW_S, Runs, runs_of, why_broken, why_crashed
from core.control.hosted import HostedRunner
from core.control.model_state import ModelState
from core.database.session import Database
from core.serving.deployment import Deployment
from core.serving.version_health import Snapshot

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    """What has been seen of one loaded version, and of its uploaded form before."""

    deployment: Deployment
    uploaded: Runs = field(default_factory=Runs)
    uploaded_crashed: bool = False
    start: Runs = field(default_factory=Runs)
    """The counters when what is held against it began."""
    started_at: float = 0.0
    last: Runs = field(default_factory=Runs)
    crashes: list[float] = field(default_factory=list)
    restarts: int = 0

    def note(self, runs: Runs, now: float) -> None:
        """Note the counters and the restarts as they are now."""
        self.last = runs
        runner = self.deployment.runner
        if isinstance(runner, HostedRunner):
            self.crashes += [now] * (runner.process.restarts - self.restarts)
            self.restarts = runner.process.restarts

    def fault(self, now: float) -> str | None:
        """Why this form is not to serve any longer, as the end of a sentence; None while it may."""
        runner = self.deployment.runner
        failed_starts = runner.process.failed_starts if isinstance(runner, HostedRunner) else 0
        fault = why_crashed(self.crashes, now, failed_starts=failed_starts, before=self.uploaded_crashed)
        seen = self.last.since(self.start)
        fault = fault or why_broken(seen, self.uploaded)
        if seen.requests >= MIN_REQUESTS and now - self.started_at > WINDOW_S:
            self.start, self.started_at = self.last, now
        return fault


class Forms:
    """`look` again and again. `counts` answers a model's counters over all processes; `wake` the reconciler."""

    def __init__(
        self,
        database: Database,
        states: Mapping[str, ModelState],
        counts: Callable[[str], Snapshot],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._states = states
        self._counts = counts
        self._wake = wake
        self._seen: dict[tuple[str, int], _Seen] = {}

    async def look(self) -> None:
        """Note how versions do, and let those go back that fail only in their recommended form.

        Raises PlatformError where that cannot be written now.
        """
        now, there = time.monotonic(), set[tuple[str, int]]()
        for model, state in list(self._states.items()):
            applied = state.loaded.applied
            if applied is None or applied.engine != "auto":
                continue
            counts = self._counts(model)
            for number, held in list(state.loaded.versions.items()):
                there.add((model, number))
                seen = self._seen_of(model, number, held.deployment, now)
                seen.note(runs_of(counts, number), now)
                if held.deployment.search is not None and (fault := seen.fault(now)) is not None:
                    await self._fall_back(state, number, held.deployment.search, fault)
        for gone in self._seen.keys() - there:
            del self._seen[gone]

    def _seen_of(self, model: str, number: int, deployment: Deployment, now: float) -> _Seen:
        before = self._seen.get((model, number))
        if before is not None and before.deployment is deployment:
            return before
        seen = self._seen[model, number] = _Seen(deployment, started_at=now)
        if before is not None and before.deployment.search is None:
            seen.uploaded, seen.uploaded_crashed = before.last, bool(before.crashes)
        return seen

    async def _fall_back(self, state: ModelState, number: int, search: int, fault: str) -> None:
        applied = state.loaded.applied
        assert applied is not None
        async with self._database.transaction() as session:
            generation = await fall_back(session, applied.model_id, number, search, fault)
        if generation is not None:
            log.warning("optimisation.fell_back", model=applied.model, optimisation_id=search, reason=fault)
            self._wake()
