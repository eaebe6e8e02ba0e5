"""The converted forms of versions, as administrators see them: listed, made anew, removed; and their bounds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.control.deploying import find_version
from core.control.optimising import Inside, calibrating_again
from core.database.repositories.deployments import Deployments
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.optimisations import Optimisations
from core.database.session import Database
from core.database.tables import DerivedArtifact, Optimisation, Version
from core.errors import Conflict, NotFound
from core.optimiser.derived import Derived
from core.settings import Settings
from core.store.artifacts import ArtifactStore

log = structlog.get_logger(__name__)

KEEP: Final = 8
"""So many of a version are kept for the next search, the newest; and whatever is in use."""
SCRATCH: Final = "optimising-rebuild-"


class DerivedForms:
    """The converted forms of all versions."""

    def __init__(self, database: Database, store: ArtifactStore, settings: Settings) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._derived = Derived(database, store)
        self._rebuilding = asyncio.Lock()

    async def list(self, name: str, number: int) -> Sequence[DerivedArtifact]:
        """Those of one version, in the order they were made. Raises ModelNotFound."""
        async with self._database.session() as session:
            version = await find_version(session, name, number)
            return await DerivedArtifacts(session).list([version.id])

    async def get(self, name: str, number: int, artifact_id: int) -> DerivedArtifact:
        """One of them. Raises ModelNotFound, NotFound."""
        async with self._database.session() as session:
            return await _artifact(session, await find_version(session, name, number), artifact_id)

    async def remove(self, name: str, number: int, artifact_id: int, actor: Actor) -> None:
        """Remove one with its files. Raises ModelNotFound, NotFound, Conflict for one that a deployment runs."""
        async with self._database.transaction() as session:
            version = await find_version(session, name, number)
            row = await _artifact(session, version, artifact_id)
            await _check_unused(session, version, row, "removed")
            detail = {"artifact": row.id, "conversion": row.conversion}
            await actor.note(session, "derived.delete", f"{name}/{number}", detail)
        await self._derived.remove(artifact_id)

    async def rebuild(self, name: str, number: int, artifact_id: int, actor: Actor) -> DerivedArtifact:
        """Make one anew by its recipe, within minutes. What a search said of the old one is not held of a new one.

        Raises ModelNotFound, NotFound, ConversionFailed, and Conflict while another or a search is under way, or
        for one that a deployment runs.
        """
        if self._rebuilding.locked():
            raise Conflict("Another form is being made anew; wait for it.")
        async with self._rebuilding:
            async with self._database.session() as session:
                version = await find_version(session, name, number)
                row = await _artifact(session, version, artifact_id)
                await _check_unused(session, version, row, "made anew")
                if await Optimisations(session).any_running():
                    raise Conflict("A search is under way, which this would disturb; wait for it, or cancel it.")
            made = await self._make(version, row, actor)
        async with self._database.transaction() as session:
            detail = {"artifact": made.id, "conversion": made.conversion, "sha256": made.sha256}
            await actor.note(session, "derived.rebuild", f"{name}/{number}", detail)
        return made

    async def trim(self, version_id: int) -> int:
        """Remove those beyond the newest that nothing uses; returns how many."""
        async with self._database.session() as session:
            version = await session.get(Version, version_id)
            if version is None:
                return 0
            rows = await DerivedArtifacts(session).list([version_id])
            used = await in_use(session, version)
        newest = {row.id for row in sorted(rows, key=lambda row: (row.made_at, row.id))[-KEEP:]}
        going = [row for row in rows if row.id not in used | newest]
        for row in going:
            try:
                await self._derived.remove(row.id)
            except NotFound:  # somebody else was quicker
                continue
            log.info("derived.removed", artifact_id=row.id, conversion=row.conversion)
        return len(going)

    async def _make(self, version: Version, row: DerivedArtifact, actor: Actor) -> DerivedArtifact:
        inside = Inside(self._database, self._store, self._settings, version)
        folder = await asyncio.to_thread(
            tempfile.TemporaryDirectory,
            prefix=SCRATCH,
            dir=self._settings.data_dir,
            ignore_cleanup_errors=True,
        )
        try:
            feeds = await calibrating_again(inside, row.recipe.get("calibration") or {}, Path(folder.name))
            return await self._derived.rebuild(row.id, feeds, by=actor.name)
        finally:
            await asyncio.to_thread(folder.cleanup)


async def in_use(session: AsyncSession, version: Version) -> set[int]:
    """Ids of the forms that a recommendation, followed or not yet, the deployment, or the way back needs."""
    searches = Optimisations(session)
    recommended = [await searches.recommended(version.id), await searches.newest_done(version.id)]
    return _artifacts(recommended) | await _deployed(session, version)


async def _deployed(session: AsyncSession, version: Version, *, before: bool = True) -> set[int]:
    deployments = Deployments(session)
    now = await deployments.get(version.model_id)
    specs: list[Any] = [now.spec] if now is not None and (now.running or before) else []
    previous = await deployments.previous(version.model_id) if before else None
    if previous is not None:
        specs.append(previous.spec)
    followed = [(spec.get("optimised") or {}).get(str(version.version)) for spec in specs]
    return _artifacts([await Optimisations(session).get(int(one)) for one in followed if one is not None])


def _artifacts(searches: Collection[Optimisation | None]) -> set[int]:
    uses = [one.recommendation["use"] for one in searches if one is not None and one.recommendation is not None]
    return {int(use["artifact_id"]) for use in uses if use["artifact_id"] is not None}


async def _check_unused(session: AsyncSession, version: Version, row: DerivedArtifact, what: str) -> None:
    if row.id in await _deployed(session, version, before=False):
        raise Conflict(
            f"A deployment runs this form, so it cannot be {what}; undeploy it or name an engine first."
        )


async def _artifact(session: AsyncSession, version: Version, artifact_id: int) -> DerivedArtifact:
    row = await DerivedArtifacts(session).get(artifact_id)
    if row is None or row.version_id != version.id:
        raise NotFound(f"Version {version.version} has no derived artifact {artifact_id}.")
    return row
