"""Runs searches one after the other: samples in, trials and a recommendation out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import structlog

from core.control.derived_forms import DerivedForms
from core.control.following import apply_recommendation
from core.control.optimising import Inputs, Inside, here_for, inputs_of, more_for, use_of
from core.database.repositories.optimisations import Optimisations
from core.database.session import Database
from core.database.tables import Optimisation, Version, utc_now
from core.errors import NotFound, PlatformError
from core.optimiser.confined import DEFAULT_LIMITS
from core.optimiser.derived import Derived
from core.optimiser.machine import fingerprint
from core.optimiser.search import Found, Progress, Search, Subject, Wanted
from core.settings import Settings
from core.signature import Signature
from core.store.artifacts import ArtifactStore
from core.store.manifest import manifest_from_json
from core.tasks.registry import task_class

log = structlog.get_logger(__name__)

POLL_S: Final = 15.0
"""A safety net: whoever adds work wakes the worker."""
CLAIM_S: Final = 10.0
FINISH_TRIES: Final = 10
SCRATCH: Final = "optimising-"
STALE_S: Final = 24 * 3600.0
HOLD_EVERY_S: Final = 0.5
"""Progress is written down where there is any, and a wish to end is seen, this often."""
LOST: Final = "The server that ran it ended; start it again. What was converted is kept."
UNEXPECTED: Final = "An unexpected error ended the search; the server's log has its trace."

OnProgress = Callable[[Progress, Sequence[Mapping[str, Any]]], None]


def seconds_for(budget_s: float) -> float:
    """How long each of a trial's two measurements takes: 2 s, or less where the whole has little time."""
    return min(2.0, max(0.2, budget_s / 60))


def _claim_end() -> datetime:
    return utc_now() + timedelta(seconds=CLAIM_S)


class OptimisationRuns:
    """Runs what is queued: `run` until cancelled, or `run_one` for one."""

    def __init__(self, database: Database, store: ArtifactStore, settings: Settings) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._wake = asyncio.Event()
        self.on_applied: Callable[[], None] = lambda: None
        """Called when a deployment has been changed to follow a recommendation."""

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    async def run(self) -> None:
        """Search until cancelled, one at a time: two would disturb each other's measurements."""
        await asyncio.to_thread(self._sweep)
        while True:
            self._wake.clear()
            try:
                await self._end_lost()
                while (found := await self._next()) is not None:
                    await self.run_one(found)
            except PlatformError as error:
                log.warning("optimisation.postponed", reason=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def run_one(self, optimisation_id: int, on_progress: OnProgress = lambda progress, trials: None) -> str:
        """Run one that is queued; returns how it ended: done, failed, cancelled, or `taken` by another."""
        async with self._database.transaction() as session:
            if not await Optimisations(session).claim(optimisation_id, _claim_end()):
                return "taken"
        run = _Run(self._database, self._store, self._settings, optimisation_id, on_progress)
        try:
            status, values = await run.outcome()
        except asyncio.CancelledError:
            await asyncio.shield(self._finish(optimisation_id, "failed", {"reason": LOST, **run.known()}))
            raise
        except PlatformError as error:
            status, values = "failed", {"reason": error.message, **run.known()}
        except Exception:
            log.exception("optimisation.crashed", optimisation_id=optimisation_id)
            status, values = "failed", {"reason": UNEXPECTED, **run.known()}
        await self._finish(optimisation_id, status, values)
        log.info("optimisation.ended", optimisation_id=optimisation_id, status=status)
        if status == "done":
            await self._apply(optimisation_id)
        await self._trim(optimisation_id)
        return status

    async def _trim(self, optimisation_id: int) -> None:
        try:
            async with self._database.session() as session:
                row = await Optimisations(session).get(optimisation_id)
            if row is not None:
                await DerivedForms(self._database, self._store, self._settings).trim(row.version_id)
        except PlatformError as error:  # the next search tries again
            log.warning("derived.not_trimmed", optimisation_id=optimisation_id, reason=error.message)

    async def _apply(self, optimisation_id: int) -> None:
        try:
            async with self._database.transaction() as session:
                applied = await apply_recommendation(session, optimisation_id)
        except PlatformError as error:
            log.warning("optimisation.not_applied", optimisation_id=optimisation_id, reason=error.message)
            return
        if applied:
            self.on_applied()

    async def _finish(self, optimisation_id: int, status: str, values: Mapping[str, Any]) -> None:
        for left in range(FINISH_TRIES - 1, -1, -1):
            try:
                async with self._database.transaction() as session:
                    await Optimisations(session).finish(optimisation_id, status, **values)
            except PlatformError as error:
                if not left:
                    raise
                log.warning("optimisation.not_written", optimisation_id=optimisation_id, reason=error.message)
                await asyncio.sleep(HOLD_EVERY_S)
            else:
                return

    def _sweep(self) -> None:
        """Remove what searches that were killed have left."""
        for folder in self._settings.data_dir.glob(f"{SCRATCH}*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > STALE_S:
                    shutil.rmtree(folder, ignore_errors=True)

    async def _end_lost(self) -> None:
        async with self._database.transaction() as session:
            await Optimisations(session).end_lost(LOST)

    async def _next(self) -> int | None:
        async with self._database.session() as session:
            return await Optimisations(session).next_queued()


class _Run:
    """One search under way."""

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        settings: Settings,
        optimisation_id: int,
        on_progress: OnProgress,
    ) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._id = optimisation_id
        self._on_progress = on_progress
        self._search: Search | None = None
        self._phase = Progress("preparing the samples")
        self._made: dict[str, tuple[int, str]] = {}
        """Ids and SHA-256 of derived artifacts by conversion."""

    async def outcome(self) -> tuple[str, dict[str, Any]]:
        """How it ends, and what is to be written down. Raises PlatformError."""
        work = asyncio.create_task(self._work(), name=f"optimisation {self._id}")
        holding = asyncio.create_task(self._hold_until_unwanted(), name=f"hold optimisation {self._id}")
        try:
            await asyncio.wait((work, holding), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            holding.result()
            return "cancelled", {"reason": "Cancelled.", **self.known()}
        finally:
            for task in (work, holding):
                task.cancel()
            await asyncio.gather(work, holding, return_exceptions=True)

    def known(self) -> dict[str, Any]:
        """What is known so far."""
        return {"progress": asdict(self._progress), "trials": self._rows, "machine": dict(fingerprint())}

    @property
    def _progress(self) -> Progress:
        return self._search.progress if self._search is not None else self._phase

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [trial.to_json() for trial in self._search.trials] if self._search is not None else []

    async def _hold_until_unwanted(self) -> None:
        written, held_at = "", 0.0
        while True:
            known = json.dumps([asdict(self._progress), self._rows])
            due = known != written or time.monotonic() - held_at > CLAIM_S / 3
            with contextlib.suppress(PlatformError):  # a locked database: the next time will do
                if not await (self._hold() if due else self._is_wanted()):
                    return
                if due:
                    written, held_at = known, time.monotonic()
            await asyncio.sleep(HOLD_EVERY_S)

    async def _hold(self) -> bool:
        """Write down what is known; False where the search is to end."""
        async with self._database.transaction() as session:
            known = asdict(self._progress), self._rows
            return await Optimisations(session).hold(self._id, _claim_end(), *known)

    async def _is_wanted(self) -> bool:
        async with self._database.session() as session:
            return await Optimisations(session).is_wanted(self._id)

    def _note_change(self) -> None:
        self._on_progress(self._progress, self._rows)

    async def _work(self) -> tuple[str, dict[str, Any]]:
        began = time.monotonic()
        row, version = await self._rows_of()
        wanted = row.wanted
        folder = await asyncio.to_thread(self._scratch)
        with folder:
            self._note_change()
            inside = Inside(self._database, self._store, self._settings, version)
            inputs = await inputs_of(inside, Path(folder.name), wanted["budget_s"])
            search = self._search = Search(
                await asyncio.to_thread(self._subject, version, inputs, Path(folder.name)),
                Wanted(
                    wanted["objective"],
                    wanted["max_accuracy_loss"],
                    wanted["budget_s"],
                    tuple(wanted.get("engines") or ()),
                    tuple(wanted.get("precisions") or ()),
                ),
                await asyncio.to_thread(here_for, version, inputs),
                lambda conversion, timeout_s: self._convert(version, inputs, conversion, timeout_s),
                self._note_change,
                seconds=seconds_for(wanted["budget_s"]),
                began=began,
                more=await asyncio.to_thread(more_for, version, wanted),
            )
            found = await search.run()
        return "done", {**self.known(), "recommendation": self._recommendation(found, inputs), "reason": ""}

    def _recommendation(self, found: Found, inputs: Inputs) -> dict[str, Any] | None:
        if found.recommendation is None:
            return None
        chosen = found.trials[found.recommendation.trial - 1]
        return {
            **found.recommendation.to_json(),
            "noise": found.noise,
            "unfinished": found.unfinished,
            "samples": inputs.to_json(found.judged),
            "use": use_of(chosen, self._made),
        }

    async def _rows_of(self) -> tuple[Optimisation, Version]:
        async with self._database.session() as session:
            row = await Optimisations(session).get(self._id)
            version = await session.get(Version, row.version_id) if row is not None else None
        if row is None or version is None:
            raise NotFound("The version has been deleted.")
        return row, version

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self._settings.data_dir, ignore_cleanup_errors=True)

    def _subject(self, version: Version, inputs: Inputs, folder: Path) -> Subject:
        manifest = manifest_from_json(version.manifest)
        signature = Signature.from_json(version.signature or {})
        return Subject(
            self._store.path(version.sha256) / (manifest.model or "model.onnx"),
            version.format,
            inputs.judging,
            folder / "reference",
            batchable=signature.why_not_batchable() is None,
            max_batch=manifest.batching.max_batch or 32,
            classes=inputs.classes,
            labels=inputs.labels,
            pooled=task_class(manifest.task).pooled(manifest.task_config(), signature),
            synthetic=inputs.synthetic,
            told=manifest.engine_extra(),
        )

    async def _convert(
        self, version: Version, inputs: Inputs, conversion: str, timeout_s: float
    ) -> tuple[Path, Mapping[str, Any]]:
        limits = replace(DEFAULT_LIMITS, wall_s=max(1.0, min(DEFAULT_LIMITS.wall_s, timeout_s)))
        derived = Derived(self._database, self._store, limits)
        made = await derived.get_or_make(
            version,
            conversion,
            inputs.calibrating,
            calibration={"samples": inputs.calibrating_ids, "synthetic": inputs.synthetic},
            by="optimiser",
        )
        self._made[conversion] = made.id, made.sha256
        return derived.path(made), dict(made.recipe.get("notes") or {})
