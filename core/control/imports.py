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
CLAIM_S: Final = 5.0
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


@dataclass(slots=True)
class _Job:
    """An import under way in this process, and how far it is."""

    id: int
    source: str
    name: str
    told: Told
    actor: Actor
    done_bytes: int = 0
    total_bytes: int | None = None

    def note(self, done_bytes: int, total_bytes: int | None) -> None:
        self.done_bytes, self.total_bytes = done_bytes, total_bytes


async def import_source(
    fetcher: Fetcher,
    uploads: Uploads,
    database: Database,
    source: str,
    name: str,
    told: Told,
    actor: Actor,
    on_progress: Progress,
    claim: Callable[[], datetime] | None = None,
) -> Imported:
    """Fetch `source` and add it as a model `name`, or as that model's next version.

    `claim` says, once it is here, until when its validation is the caller's; by default it is nobody's yet. Raises
    what the fetcher and the uploads raise.
    """
    parsed = parse_source(source)
    check_model_name(name)
    model = await _model(database, name)
    task = told.task or (model.task if model is not None else None)
    fetched = await fetcher.fetch(parsed, on_progress, task=task, manifest=told.manifest)
    try:
        said = replace(told, filename=fetched.filename, manifest=told.manifest or fetched.manifest)
        add = uploads.add_model if await _model(database, name) is None else uploads.add_version
        added, version = await add(fetched.received, name, said, actor, claim() if claim else None)
    except BaseException:
        await asyncio.shield(uploads.discard(fetched.received))
        raise
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
        job = _Job(row.id, source, name, told, actor)
        task = asyncio.create_task(self._run(job), name=f"import {row.id}")
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

    async def _run(self, job: _Job) -> None:
        fetching = asyncio.create_task(self._work(job), name=f"fetch of import {job.id}")
        holding = asyncio.create_task(self._hold(job, fetching), name=f"hold import {job.id}")
        try:
            await self._end(job, fetching)
        finally:
            holding.cancel()
            await asyncio.wait([holding])

    async def _work(self, job: _Job) -> Imported:
        async with self._places:
            return await import_source(
                self._fetcher, self._uploads, self._database, job.source, job.name, job.told, job.actor, job.note
            )

    async def _end(self, job: _Job, fetching: asyncio.Task[Imported]) -> None:
        try:
            imported = await fetching
        except asyncio.CancelledError:
            fetching.cancel()
            await asyncio.wait([fetching])
            await self._finish(job, "failed", STOPPED)
        except PlatformError as error:
            await self._finish(job, "failed", error.message)
        except Exception:
            log.exception("import.crashed", import_id=job.id)
            await self._finish(job, "failed", "An unexpected error happened here; the server's log has it.")
        else:
            await self._finish(job, "done", "", imported)

    async def _finish(self, job: _Job, state: str, reason: str, imported: Imported | None = None) -> None:
        version, commit = (imported.version.version, imported.commit) if imported else (None, None)
        try:
            async with self._database.transaction() as session:
                rows = Rows(session)
                await rows.hold(job.id, _claim_end(), job.done_bytes, job.total_bytes)
                if await rows.finish(job.id, state, reason, version=version, commit=commit) and reason:
                    detail = {"import": job.id, "reason": reason}
                    await job.actor.note(session, "import.fail", job.name, detail)
        except PlatformError as error:
            log.warning("import.not_written", import_id=job.id, reason=error.message)
            return
        log.info("import.ended", import_id=job.id, state=state, reason=reason)

    async def _hold(self, job: _Job, fetching: asyncio.Task[Imported]) -> None:
        """Tell how far it is; end it where another server was asked to."""
        while True:
            try:
                async with self._database.transaction() as session:
                    if not await Rows(session).hold(job.id, _claim_end(), job.done_bytes, job.total_bytes):
                        fetching.cancel()
                        return
            except PlatformError as error:
                log.warning("import.not_held", import_id=job.id, reason=error.message)
            await asyncio.sleep(TELL_EVERY_S)


def is_lost(row: Import) -> bool:
    """Whether a row that says `running` has lost its process."""
    return row.state == "running" and row.claimed_until < utc_now()


def _claim_end() -> datetime:
    return utc_now() + timedelta(seconds=CLAIM_S)


async def _model(database: Database, name: str) -> Model | None:
    async with database.session() as session:
        return await Models(session).by_name(name)
