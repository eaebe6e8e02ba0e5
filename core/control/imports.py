"""Imports of models from sources: fetched in the background, and handed to the ordinary upload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from core.control.actor import Actor
from core.control.uploads import Told, Uploads
from core.database.repositories.imports import Imports as Rows
from core.database.repositories.models import Models
from core.database.session import Database
from core.database.tables import Import, Model, Version, utc_now
from core.errors import Conflict, LimitExceeded, NotFound, PlatformError
from core.store.names import check_model_name
from core.store.sources.fetcher import Fetcher
from core.store.sources.repository import Progress
from core.store.sources.source import Source, parse_source

log = structlog.get_logger(__name__)

CONCURRENCY: Final = 2
MAX_UNDER_WAY: Final = 32
CLAIM_S: Final = 10.0
TELL_EVERY_S: Final = 0.5
STOP_S: Final = 10.0
LOST: Final = "The server that fetched it ended before it was done; import it again to go on from where it was."
STOPPED: Final = "The server stopped before it was done; import it again to go on from where it was."
CANCELLED: Final = "It was cancelled; import it again to go on from where it was."


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import became."""

    model: Model
    version: Version
    commit: str | None


async def import_source(
    fetcher: Fetcher,
    uploads: Uploads,
    database: Database,
    source: str,
    name: str,
    told: Told,
    actor: Actor,
    on_progress: Progress,
    claim: Callable[[], datetime] = utc_now,
) -> Imported:
    """Fetch `source` and add it as a model `name`, or as that model's next version.

    `claim` says, once it is here, until when its validation is the caller's; by default it is nobody's. Raises what the fetcher and the uploads raise.
    """
    parsed = parse_source(source)
    check_model_name(name)
    model = await _model(database, name)
    task = told.task or (model.task if model is not None else None)
    fetched = await fetcher.fetch(parsed, on_progress, task=task, manifest=told.manifest)
    said = replace(told, filename=fetched.filename, manifest=told.manifest or fetched.manifest)
    add = uploads.add_model if await _model(database, name) is None else uploads.add_version
    added, version = await add(fetched.received, name, said, actor, claim())
    detail = {"source": source, "commit": fetched.commit, "sha256": version.sha256}
    async with database.transaction() as session:
        await actor.note(session, "model.import", f"{name}/{version.version}", detail)
    return Imported(added, version, fetched.commit)


class Imports:
    """The imports that this process has been asked for, two at a time; rows in the database tell of them all."""

    def __init__(self, database: Database, uploads: Uploads, fetcher: Fetcher) -> None:
        self._database = database
        self._uploads = uploads
        self._fetcher = fetcher
        self._places = asyncio.Semaphore(CONCURRENCY)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def start(self, source: str, name: str, told: Told, actor: Actor) -> Import:
        """Begin an import, which goes on in the background.

        Raises BadRequest, Forbidden, Conflict for one that is under way, LimitExceeded for one too many.
        """
        parsed: Source = parse_source(source)
        check_model_name(name)
        self._fetcher.check(parsed)
        async with self._database.transaction() as session:
            rows = Rows(session)
            await rows.end_lost(LOST)
            if await rows.is_running(name, source):
                raise Conflict(f"The model {name} is being imported from there already.")
            if await rows.running() >= MAX_UNDER_WAY:
                raise LimitExceeded(
                    "As many imports are under way as there may be; wait for one.", retry_after_s=30
                )
            row = await rows.add(name, source, _claim_end(), actor.name)
            await actor.note(session, "import.start", name, {"source": source, "import": row.id})
        task = asyncio.create_task(self._run(row.id, source, name, told, actor), name=f"import {row.id}")
        self._tasks[row.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(row.id, None))
        return row

    async def cancel(self, import_id: int, actor: Actor) -> Import:
        """End an import, on whichever server it runs; what has come stays in the cache.

        Raises NotFound, Conflict where it has ended.
        """
        async with self._database.transaction() as session:
            if await Rows(session).get(import_id) is None:
                raise NotFound(f"There is no import {import_id}.")
            if not await Rows(session).finish(import_id, "cancelled", CANCELLED):
                raise Conflict(f"The import {import_id} has ended already.")
            await actor.note(session, "import.cancel", str(import_id))
        if import_id in self._tasks:
            self._tasks[import_id].cancel()
        async with self._database.session() as session:
            row = await Rows(session).get(import_id)
        assert row is not None
        return row

    async def close(self) -> None:
        """Stop what is under way; each is written down as failed."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

    async def _run(self, import_id: int, source: str, name: str, told: Told, actor: Actor) -> None:
        here: list[int | None] = [0, None]

        def note(done: int, total: int | None) -> None:
            here[:] = done, total

        async def work() -> Imported:
            async with self._places:
                return await import_source(
                    self._fetcher, self._uploads, self._database, source, name, told, actor, note
                )

        fetching = asyncio.create_task(work(), name=f"fetch of import {import_id}")
        holding = asyncio.create_task(self._hold(import_id, here, fetching), name=f"hold import {import_id}")
        try:
            await self._end(import_id, name, fetching, actor)
        finally:
            holding.cancel()

    async def _end(self, import_id: int, name: str, fetching: asyncio.Task[Imported], actor: Actor) -> None:
        try:
            imported = await fetching
        except asyncio.CancelledError:
            fetching.cancel()
            await asyncio.wait([fetching])
            await self._finish(import_id, name, "failed", STOPPED, actor)
        except PlatformError as error:
            await self._finish(import_id, name, "failed", error.message, actor)
        except Exception:
            log.exception("import.crashed", import_id=import_id)
            await self._finish(import_id, name, "failed", "An unexpected error; see the server's log.", actor)
        else:
            await self._finish(import_id, name, "done", "", actor, imported)

    async def _finish(
        self, import_id: int, name: str, state: str, reason: str, actor: Actor, imported: Imported | None = None
    ) -> None:
        version = imported.version if imported is not None else None
        try:
            async with self._database.transaction() as session:
                ended = await Rows(session).finish(
                    import_id,
                    state,
                    reason,
                    version=version.version if version is not None else None,
                    commit=imported.commit if imported is not None else None,
                )
                if ended and version is None:
                    await actor.note(session, "import.fail", name, {"import": import_id, "reason": reason})
        except PlatformError as error:
            log.warning("import.not_written", import_id=import_id, reason=error.message)
            return
        log.info("import.ended", import_id=import_id, state=state, reason=reason)

    async def _hold(self, import_id: int, here: list[int | None], fetching: asyncio.Task[Imported]) -> None:
        """Tell how far it is; end it where another server was asked to."""
        while True:
            try:
                async with self._database.transaction() as session:
                    if not await Rows(session).hold(import_id, _claim_end(), here[0] or 0, here[1]):
                        fetching.cancel()
                        return
            except PlatformError as error:
                log.warning("import.not_held", import_id=import_id, reason=error.message)
            await asyncio.sleep(TELL_EVERY_S)


def is_lost(row: Import) -> bool:
    """Whether a row that says `running` has lost its process."""
    return row.state == "running" and row.claimed_until < utc_now()


def _claim_end() -> datetime:
    return utc_now() + timedelta(seconds=CLAIM_S)


async def _model(database: Database, name: str) -> Model | None:
    async with database.session() as session:
        return await Models(session).by_name(name)
