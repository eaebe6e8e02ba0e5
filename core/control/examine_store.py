"""Whether the store and the database agree."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from core.control.findings import Finding, fine
from core.control.optimisations import SCRATCH, STALE_S
from core.control.uploads import Uploads
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.models import REVISION
from core.database.repositories.revisions import Revisions
from core.database.repositories.samples import Samples
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import DerivedArtifact, Sample, Version
from core.settings import Settings
from core.store.artifacts import ArtifactStore
from core.store.samples import SampleStore

STEP = 500
MISSING = "Its files are missing from the store; upload it again."
Row = TypeVar("Row", Version, DerivedArtifact, Sample)
CHANGED = "Its files are not what was uploaded; upload it again."


class StoreExamination:
    """Looks at artifacts, converted forms, samples, and what is half-done. May run beside a server."""

    def __init__(
        self, database: Database, store: ArtifactStore, uploads: Uploads, settings: Settings, *, hashes: bool
    ) -> None:
        self._database = database
        self._store = store
        self._uploads = uploads
        self._samples = SampleStore(settings.samples_dir, min_free_bytes=settings.store.min_free_bytes)
        self._samples_root = settings.samples_dir
        self._data_dir = settings.data_dir
        self._hashes = hashes

    async def findings(self) -> AsyncIterator[Finding]:
        """All of them, in order; raises PlatformError where the database goes away meanwhile."""
        for check, look in (
            ("versions", self._versions),
            ("converted forms", self._derived),
            ("samples", self._sample_rows),
            ("orphans", self._orphans),
            ("half-done", self._half_done),
        ):
            found = [one async for one in look()]
            for one in found:
                yield one
            if not found:
                yield fine(check, _WELL[check])

    async def _versions(self) -> AsyncIterator[Finding]:
        async for version in self._rows(Version):
            if version.status not in ("valid", "validating"):
                continue
            trouble = await self._trouble(version.sha256)
            if trouble:
                name = f"{version.model.name}/{version.version}"
                mend = partial(self._mark, version.id, MISSING if trouble == _GONE else CHANGED)
                yield Finding("versions", "error", f"{name}: {trouble}. Upload it again.", mend)

    async def _derived(self) -> AsyncIterator[Finding]:
        async for row in self._rows(DerivedArtifact):
            trouble = await self._trouble(row.sha256)
            if trouble:
                message = f"form {row.id} ({row.conversion}): {trouble}. It is made again when it is needed."
                yield Finding("converted forms", "warning", message, partial(self._drop_form, row.id))

    async def _sample_rows(self) -> AsyncIterator[Finding]:
        async for row in self._rows(Sample):
            if not await asyncio.to_thread(self._samples.path(row.sha256).is_file):
                mend = partial(self._drop_sample, row.model_id, row.id)
                yield Finding("samples", "warning", f"sample {row.id}: its file is missing.", mend)

    async def _orphans(self) -> AsyncIterator[Finding]:
        for sha256 in await asyncio.to_thread(lambda: list(self._store.addresses())):
            async with self._database.session() as session:
                used = await Versions(session).sha256_in_use(sha256)
            if not used and not await asyncio.to_thread(self._store.is_being_changed, sha256):
                message = f"artifact {sha256[:12]}…: no version needs it."
                yield Finding("orphans", "warning", message, partial(self._uploads.forget, [sha256]))
        for path in await asyncio.to_thread(_files_of, self._samples_root):
            async with self._database.session() as session:
                used = await Samples(session).sha256_in_use(path.name)
            if not used:
                message = f"sample file {path.name[:12]}…: no sample needs it."
                yield Finding("orphans", "warning", message, partial(_unlink, path))

    async def _half_done(self) -> AsyncIterator[Finding]:
        left = await asyncio.to_thread(self._store.half_done)
        if left:
            message = f"{len(left)} things in artifacts/incoming belong to processes that are no more."
            yield Finding("half-done", "warning", message, self._clear)
        stale = await asyncio.to_thread(self._stale)
        if stale:
            message = f"{len(stale)} temporary files or folders have not been touched for a day."
            yield Finding("half-done", "warning", message, partial(_remove_all, stale))

    def _stale(self) -> list[Path]:
        """What searches and samples under way make, and take away themselves within hours."""
        before = time.time() - STALE_S
        there = [*self._data_dir.glob(f"{SCRATCH}*"), *self._samples_root.glob("[0-9a-f][0-9a-f]/.*")]
        return [path for path in there if path.lstat().st_mtime < before]

    async def _trouble(self, sha256: str) -> str:
        """What is wrong with an artifact, as a sentence without its end; empty where nothing is."""
        if not await asyncio.to_thread(self._store.exists, sha256):
            return _GONE
        if self._hashes:
            found = await asyncio.to_thread(self._store.differences, sha256)
            if found:
                return f"its files are not what was uploaded: {found[0]}"
        return ""

    async def _rows(self, table: type[Row]) -> AsyncIterator[Row]:
        last = 0
        while True:
            query = select(table).where(table.id > last).order_by(table.id).limit(STEP)
            if issubclass(table, Version):
                query = query.options(joinedload(Version.model))
            async with self._database.session() as session:
                rows = (await session.scalars(query)).all()
            for row in rows:
                yield row
            if len(rows) < STEP:
                return
            last = rows[-1].id

    async def _mark(self, version_id: int, detail: str) -> None:
        """Let nobody deploy it: a version that is deployed keeps what it has in memory."""
        report = [{"check": "files", "ok": False, "detail": detail, "ms": 0.0}]
        async with self._database.transaction() as session:
            row = await session.get(Version, version_id)
            if row is not None:
                row.status, row.report, row.claimed_until = "invalid", report, None
                await Revisions(session).bump(REVISION)

    async def _drop_form(self, artifact_id: int) -> None:
        async with self._database.transaction() as session:
            row = await DerivedArtifacts(session).get(artifact_id)
            if row is not None:
                await DerivedArtifacts(session).remove(row)

    async def _drop_sample(self, model_id: int, sample_id: int) -> None:
        async with self._database.transaction() as session:
            await Samples(session).remove(model_id, [sample_id])

    async def _clear(self) -> None:
        await self._uploads.clear_after_the_dead()
        await self._store.clear_half_done()  # of releases that knew no owners


_GONE = "its files are missing from the store"
_WELL = {
    "versions": "every version has its files, and they are what was uploaded",
    "converted forms": "every converted form has its files",
    "samples": "every sample has its file",
    "orphans": "the store holds nothing that nobody needs",
    "half-done": "nothing half-done is left of processes that are no more",
}


def _files_of(root: Path) -> list[Path]:
    return [path for path in root.glob("[0-9a-f][0-9a-f]/*") if path.is_file()]


async def _remove_all(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        else:
            await _unlink(path)


async def _unlink(path: Path) -> None:
    await asyncio.to_thread(path.unlink, missing_ok=True)
