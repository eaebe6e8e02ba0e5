"""Turns a received file into a version of a model: import, rows, validation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from core.control.actor import Actor
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Model, Version
from core.errors import Conflict, ModelNotFound
from core.kill_points import reach
from core.store.artifacts import ArtifactStore
from core.store.importer import Imported, Importer
from core.store.names import check_model_name
from core.store.uploads import Received


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller says beside the file."""

    filename: str = ""
    task: str | None = None
    description: str | None = None
    manifest: str | None = None


class Uploads:
    """Adds models and versions. What it adds is `validating`, held by the caller until `claimed_until`."""

    def __init__(self, database: Database, store: ArtifactStore, importer: Importer) -> None:
        self._database = database
        self._store = store
        self._importer = importer
        self._publishing = asyncio.Lock()

    async def add_model(
        self, received: Received, name: str, told: Told, actor: Actor, claimed_until: datetime | None = None
    ) -> tuple[Model, Version]:
        """Add a model with its first version. Raises Conflict, InvalidPackage and what the importer raises."""
        return await self._add(received, name, told, actor, claimed_until, new=True)

    async def add_version(
        self, received: Received, name: str, told: Told, actor: Actor, claimed_until: datetime | None = None
    ) -> tuple[Model, Version]:
        """Add the next version of a model. Raises ModelNotFound and what `add_model` raises."""
        return await self._add(received, name, told, actor, claimed_until, new=False)

    async def discard(self, received: Received) -> None:
        """Remove a received file that will not be added; no error where it is gone."""
        await self._store.discard(received)

    async def check_new(self, name: str) -> None:
        """Raise BadRequest or Conflict for a name that no new model can have."""
        check_model_name(name)
        async with self._database.session() as session:
            if await Models(session).by_name(name) is not None:
                raise Conflict(f"There is a model called {name} already; add a version to it instead.")

    async def check_existing(self, name: str) -> Model:
        """The model of that name. Raises ModelNotFound."""
        async with self._database.session() as session:
            model = await Models(session).by_name(name)
        if model is None:
            raise ModelNotFound(f"There is no model {name[:64]!r}.")
        return model

    async def _add(
        self, received: Received, name: str, told: Told, actor: Actor, until: datetime | None, *, new: bool
    ) -> tuple[Model, Version]:
        try:
            if new:
                await self.check_new(name)
                task = told.task
            else:
                task = told.task or (await self.check_existing(name)).task
            # One at a time here, for what unpacking takes; and nobody elsewhere at the same address, so that what
            # a failed upload takes back is never another's that has just been published.
            async with self._publishing, self._store.changing([received.sha256]):
                return await self._publish(received, task, name, told, actor, until, new=new)
        except BaseException:
            await self._store.discard(received)
            raise

    async def _publish(
        self,
        received: Received,
        task: str | None,
        name: str,
        told: Told,
        actor: Actor,
        until: datetime | None,
        *,
        new: bool,
    ) -> tuple[Model, Version]:
        try:
            imported = await self._importer.import_file(
                received, filename=told.filename, manifest_text=told.manifest, task=task
            )
            reach("upload.published")
            return await self._write(imported, name, told, actor, until, new=new)
        except BaseException:
            await self._forget(received.sha256)  # one that is cancelled may have been published all the same
            raise

    async def _write(
        self, imported: Imported, name: str, told: Told, actor: Actor, until: datetime | None, *, new: bool
    ) -> tuple[Model, Version]:
        async with self._database.transaction() as session:
            models = Models(session)
            if new:
                task = str(imported.manifest["task"])
                description = told.description or str(imported.manifest.get("description", ""))
                model = await models.add(name, task, description=description, created_by=actor.name)
                await actor.note(session, "model.create", name, {"task": task})
            else:
                found = await models.by_name(name)
                if found is None:
                    raise ModelNotFound(f"There is no model {name[:64]!r}.")
                model = found
            version = await Versions(session).add_next(
                model.id,
                format=imported.format,
                size_bytes=imported.size_bytes,
                sha256=imported.sha256,
                manifest=imported.manifest,
                claimed_until=until,
                created_by=actor.name,
            )
            await actor.note(session, "version.create", f"{name}/{version.version}", {"sha256": imported.sha256})
            await session.refresh(model)
            reach("upload.written")
        reach("upload.committed")
        return model, version

    @asynccontextmanager
    async def removing(self, addresses: Collection[str]) -> AsyncIterator[None]:
        """Delete rows inside of this; at its end, the artifacts that no version needs any more are removed.

        Where the process is killed in between, the next start removes them.
        """
        async with self._store.changing(addresses):
            yield
            reach("remove.committed")
            for sha256 in addresses:
                await self._forget(sha256)

    async def forget(self, addresses: Iterable[str]) -> None:
        """Remove artifacts that no version needs any more."""
        async with self.removing([*addresses]):
            pass

    async def clear_after_the_dead(self) -> int:
        """Undo what processes that were killed had begun in the store; returns how many things they had left."""
        return await self._store.clear_after_the_dead(lambda sha256: self.forget([sha256]))

    async def _forget(self, sha256: str) -> None:
        async with self._database.session() as session:
            if await Versions(session).sha256_in_use(sha256):
                return
        await self._store.remove(sha256)
