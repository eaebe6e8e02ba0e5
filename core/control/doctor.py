"""Examines an installation and, where asked to, mends what it can."""

from __future__ import annotations

from collections.abc import AsyncIterator

from core.control import examine_machine
from core.control.examine_store import StoreExamination
from core.control.findings import Finding, fine
from core.control.uploads import Uploads
from core.database import migration
from core.database.session import Database
from core.errors import PlatformError
from core.settings import Settings
from core.store.artifacts import ArtifactStore


class Doctor:
    """`examine` yields each finding as it comes, mended already where `mend` is set."""

    def __init__(
        self,
        settings: Settings,
        store: ArtifactStore,
        uploads: Uploads,
        database: Database,
        *,
        hashes: bool = True,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = StoreExamination(database, store, uploads, settings, hashes=hashes)

    async def examine(self, *, mend: bool = False) -> AsyncIterator[Finding]:
        """Look at everything. What cannot be looked at is a finding too."""
        async for finding in self._all(mend):
            if mend and finding.mend is not None:
                try:
                    await finding.mend()
                except (PlatformError, OSError) as error:
                    finding.message += f" It could not be mended: {error}"
                else:
                    finding.mended = True
            yield finding

    async def _all(self, mend: bool) -> AsyncIterator[Finding]:
        for finding in (
            *examine_machine.permissions(self._settings),
            *examine_machine.disk(self._settings),
            await examine_machine.redis(self._settings),
        ):
            yield finding
        try:
            schema = await self._schema()
            yield schema
            if schema.level == "error" and not (mend and schema.mended):
                return
            yield await examine_machine.clock(self._database)
            yield await examine_machine.keys(self._settings, self._database)
            async for finding in examine_machine.engines(self._database):
                yield finding
            async for finding in self._store.findings():
                yield finding
        except PlatformError as error:
            yield Finding("database", "error", error.message)

    async def _schema(self) -> Finding:
        url = self._settings.database_url
        revision = await migration.current(url)
        if await migration.is_current(url):
            return fine("database", f"it answers, and is at revision {revision}")
        if revision is None:
            return Finding("database", "error", "it holds nothing yet: run.py migrate.", self._migrate)
        return Finding("database", "error", f"it is at revision {revision}: run.py migrate.", self._migrate)

    async def _migrate(self) -> None:
        await migration.upgrade(self._settings.database_url)
