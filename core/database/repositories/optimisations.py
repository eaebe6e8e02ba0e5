"""Searches for the best way to run a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from core.database.repositories.base import Repository
from core.database.repositories.results import affected
from core.database.repositories.revisions import Revisions
from core.database.tables import Optimisation, utc_now
from core.errors import Conflict

REVISION: Final = "optimisations"
UNDER_WAY: Final = ("queued", "running")
KEEP: Final = 20
"""So many of a version are kept; older ones go."""


class Optimisations(Repository):
    """Queries about optimisations. A new one raises the revision `optimisations`."""

    async def add(self, version_id: int, wanted: dict[str, Any], created_by: str) -> Optimisation:
        """Queue one. Raises Conflict while another of the same version is under way."""
        latest = await self.latest(version_id)
        if latest is not None and latest.status in UNDER_WAY:
            raise Conflict(f"Optimisation {latest.id} of this version is under way; wait for it, or cancel it.")
        follow = bool(wanted.get("apply", True))
        row = Optimisation(version_id=version_id, wanted=wanted, follow=follow, created_by=created_by)
        self._session.add(row)
        await self._session.flush()
        await self._forget_old(version_id)
        await Revisions(self._session).bump(REVISION)
        return row

    async def get(self, optimisation_id: int) -> Optimisation | None:
        """The one with that id, as it is now."""
        return await self._session.get(Optimisation, optimisation_id, populate_existing=True)

    async def latest(self, version_id: int) -> Optimisation | None:
        """The newest of a version."""
        query = select(Optimisation).where(Optimisation.version_id == version_id)
        return await self._session.scalar(query.order_by(Optimisation.id.desc()).limit(1))

    async def recommended(self, version_id: int) -> Optimisation | None:
        """The newest with a recommendation of those that are to be followed."""
        query = select(Optimisation).where(_ended_well(version_id), Optimisation.follow)
        return await self._session.scalar(query.order_by(Optimisation.id.desc()).limit(1))

    async def newest_done(self, version_id: int) -> Optimisation | None:
        """The newest with a recommendation, to be followed or not."""
        query = select(Optimisation).where(_ended_well(version_id))
        return await self._session.scalar(query.order_by(Optimisation.id.desc()).limit(1))

    async def follow_only(self, version_id: int, optimisation_id: int | None) -> None:
        """Of a version's searches that have ended, let this one alone be followed, or None."""
        ended = update(Optimisation).where(_ended_well(version_id))
        await self._session.execute(ended.values(follow=False))
        if optimisation_id is not None:
            await self._session.execute(
                ended.where(Optimisation.id == optimisation_id).values(follow=True, fault="")
            )

    async def mark(self, optimisation_id: int, fault: str) -> None:
        """Note why its recommendation is not followed any more, for what it did in service."""
        change = update(Optimisation).where(Optimisation.id == optimisation_id)
        await self._session.execute(change.values(fault=fault))

    async def claim(self, optimisation_id: int, until: datetime) -> bool:
        """Begin one that is queued; False where somebody else has."""
        change = update(Optimisation).where(Optimisation.id == optimisation_id, Optimisation.status == "queued")
        begun = change.values(status="running", claimed_until=until, started_at=utc_now())
        return affected(await self._session.execute(begun)) == 1

    async def next_queued(self) -> int | None:
        """The oldest that waits."""
        query = select(Optimisation.id).where(Optimisation.status == "queued").order_by(Optimisation.id).limit(1)
        return await self._session.scalar(query)

    async def end_lost(self, reason: str) -> int:
        """Fail those that are running by nobody any more; returns how many."""
        unclaimed = or_(Optimisation.claimed_until.is_(None), Optimisation.claimed_until < utc_now())
        change = update(Optimisation).where(Optimisation.status == "running", unclaimed)
        ended = change.values(status="failed", reason=reason, ended_at=utc_now())
        return affected(await self._session.execute(ended))

    async def hold(
        self,
        optimisation_id: int,
        until: datetime,
        progress: Mapping[str, Any],
        trials: Sequence[Mapping[str, Any]],
    ) -> bool:
        """Keep a running one until `until`, with what is known so far; False where it is to end."""
        change = update(Optimisation).where(Optimisation.id == optimisation_id, Optimisation.status == "running")
        kept = change.values(claimed_until=until, progress=dict(progress), trials=[dict(row) for row in trials])
        cancelled = await self._session.scalar(kept.returning(Optimisation.cancel))
        return cancelled is False

    async def is_wanted(self, optimisation_id: int) -> bool:
        """Whether a running one is to go on; only looks."""
        query = select(Optimisation.cancel).where(
            Optimisation.id == optimisation_id, Optimisation.status == "running"
        )
        return await self._session.scalar(query) is False

    async def finish(self, optimisation_id: int, status: str, **values: Any) -> bool:
        """End a running one as done, failed or cancelled; False where it is not running any more."""
        change = update(Optimisation).where(Optimisation.id == optimisation_id, Optimisation.status == "running")
        ended = change.values(status=status, ended_at=utc_now(), claimed_until=None, **values)
        return affected(await self._session.execute(ended)) == 1

    async def request_cancel(self, optimisation: Optimisation) -> None:
        """Let one end: a queued one at once, a running one soon."""
        queued = update(Optimisation).where(Optimisation.id == optimisation.id, Optimisation.status == "queued")
        await self._session.execute(queued.values(status="cancelled", cancel=True, ended_at=utc_now()))
        running = update(Optimisation).where(Optimisation.id == optimisation.id, Optimisation.status == "running")
        await self._session.execute(running.values(cancel=True))
        await Revisions(self._session).bump(REVISION)

    async def _forget_old(self, version_id: int) -> None:
        """Those that ended without a result go first: a deployment may follow one that has one."""
        for done in (Optimisation.status == "done", Optimisation.status != "done"):
            of_version = (Optimisation.version_id == version_id, done)
            newest = select(Optimisation.id).where(*of_version).order_by(Optimisation.id.desc()).limit(KEEP)
            kept = (await self._session.scalars(newest)).all()
            if len(kept) == KEEP:
                await self._session.execute(delete(Optimisation).where(*of_version, Optimisation.id < kept[-1]))

    async def any_running(self) -> bool:
        """Whether somebody is at work on one."""
        query = select(Optimisation.id).where(
            Optimisation.status == "running", Optimisation.claimed_until > utc_now()
        )
        return await self._session.scalar(query.limit(1)) is not None


def _ended_well(version_id: int) -> ColumnElement[bool]:
    return and_(Optimisation.version_id == version_id, Optimisation.status == "done")
