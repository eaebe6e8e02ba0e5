"""Runs validations one after the other, and takes over those that a crash left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Version, utc_now
from core.errors import PlatformError
from core.kill_points import reach
from core.settings import ValidationSettings
from core.store.artifacts import ArtifactStore
from core.validation.runner import validate

log = structlog.get_logger(__name__)

OnCheck = Callable[[Mapping[str, Any]], None]
POLL_S = 15.0
"""A safety net: whoever adds work wakes the workers."""
CLAIM_S = 10.0
"""A claim holds this long and is renewed three times as often: what a crash left behind is soon taken over."""
TELL_EVERY_S = 0.25
"""A report that grows is written down this often at most, for whoever asks another process."""


def claim_end() -> datetime:
    """Until when a claim made now holds."""
    return utc_now() + timedelta(seconds=CLAIM_S)


class Validations:
    """Validates versions whose row says `validating`. `run` until cancelled, or `run_one` for one."""

    def __init__(
        self, database: Database, store: ArtifactStore, settings: ValidationSettings, *, trust_plans: bool = False
    ) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._trust_plans = trust_plans
        self._wake = asyncio.Event()
        self.running: dict[int, list[Mapping[str, Any]]] = {}
        """Checks done so far of each validation under way in this process, by version id."""

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    async def run(self) -> None:
        """Validate until cancelled, `concurrency` at a time."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._settings.concurrency):
                group.create_task(self._worker(), name=f"validations {number}")

    async def run_one(self, version: Version, on_check: OnCheck = lambda check: None) -> bool:
        """Validate one version that the caller has claimed; true when it is valid."""
        done: list[Mapping[str, Any]] = []
        self.running[version.id] = done
        grown = asyncio.Event()
        holding = asyncio.create_task(self._hold(version, done, grown), name=f"hold validation {version.id}")

        def note(check: Mapping[str, Any]) -> None:
            done.append(check)
            grown.set()
            on_check(check)

        try:
            root = self._store.path(version.sha256)
            result = await validate(root, version.manifest, self._settings, note, trust_plans=self._trust_plans)
        finally:
            self.running.pop(version.id, None)
            holding.cancel()
        status = "valid" if result.ok else "invalid"
        reach("validation.checked")
        await self._finish(version, status, report=result.report, signature=result.signature)
        reach("validation.finished")
        log.info("version.validated", version_id=version.id, status=status)
        return result.ok

    async def _worker(self) -> None:
        while True:
            self._wake.clear()
            try:
                while (version := await self._claim()) is not None:
                    reach("validation.claimed")
                    await self._run_logged(version)
            except PlatformError as error:
                log.warning("validation.postponed", reason=error.message)
            await self._sleep()

    async def _claim(self) -> Version | None:
        async with self._database.transaction() as session:
            return await Versions(session).claim_stale(claim_end())

    async def _hold(self, version: Version, done: Sequence[Mapping[str, Any]], grown: asyncio.Event) -> None:
        while True:
            grown.clear()
            try:
                async with self._database.transaction() as session:
                    await Versions(session).hold(version, claim_end(), done)
            except PlatformError as error:
                log.warning("validation.not_held", version_id=version.id, reason=error.message)
            await asyncio.sleep(TELL_EVERY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLAIM_S / 3):
                    await grown.wait()

    async def _run_logged(self, version: Version) -> None:
        try:
            await self.run_one(version)
        except PlatformError:
            raise
        except Exception as error:
            log.exception("validation.crashed", version_id=version.id)
            detail = f"The validator could not do its work ({type(error).__name__}); validate again."
            report = [{"check": "validator", "ok": False, "detail": detail, "ms": 0.0}]
            await self._finish(version, "invalid", report=report)

    async def _finish(
        self,
        version: Version,
        status: str,
        *,
        report: list[dict[str, Any]],
        signature: dict[str, Any] | None = None,
    ) -> None:
        async with self._database.transaction() as session:
            await Versions(session).finish(version.id, status, report=report, signature=signature)

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            pass
