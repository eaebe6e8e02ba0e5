"""Versions of models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import joinedload

from core.database.repositories.base import Repository
from core.database.repositories.models import REVISION
from core.database.repositories.results import affected
from core.database.repositories.revisions import Revisions
from core.database.tables import DerivedArtifact, Model, Version, utc_now
from core.errors import ModelNotFound

_STEP = 1000


class Versions(Repository):
    """Queries about versions. Every change raises the revision `models`."""

    async def get(self, model_id: int, version: int) -> Version | None:
        """Version number `version` of a model."""
        return await self._session.scalar(
            select(Version).where(Version.model_id == model_id, Version.version == version)
        )

    async def list(self, model_id: int) -> Sequence[Version]:
        """All versions of a model, newest first."""
        query = select(Version).where(Version.model_id == model_id).order_by(Version.version.desc())
        return (await self._session.scalars(query)).all()

    async def newest_of(self, model_ids: Collection[int]) -> Mapping[int, Version]:
        """The newest version of each of these models that has one."""
        newest = select(func.max(Version.id)).where(Version.model_id.in_(model_ids)).group_by(Version.model_id)
        rows = await self._session.scalars(select(Version).where(Version.id.in_(newest)))
        return {row.model_id: row for row in rows}

    async def furthest(self) -> Version | None:
        """The newest valid version of any model, with its model; where none is valid, the newest."""
        order = ((Version.status == "valid").desc(), Version.id.desc())
        return await self._session.scalar(
            select(Version).options(joinedload(Version.model)).order_by(*order).limit(1)
        )

    async def add_next(
        self,
        model_id: int,
        *,
        format: str,
        size_bytes: int,
        sha256: str,
        manifest: dict[str, Any],
        claimed_until: datetime | None = None,
        created_by: str = "",
    ) -> Version:
        """Add a version under the model's next number, to be validated. Raises ModelNotFound.

        With `claimed_until` the caller holds the validation until then.
        """
        row = Version(
            model_id=model_id,
            version=await self._take_number(model_id),
            format=format,
            size_bytes=size_bytes,
            sha256=sha256,
            manifest=manifest,
            status="validating",
            claimed_until=claimed_until,
            created_by=created_by,
        )
        self._session.add(row)
        await self._session.flush()
        await Revisions(self._session).bump(REVISION)
        return row

    async def claim(self, version_id: int, until: datetime) -> bool:
        """Begin a validation, which is the caller's until `until`; False while another's is under way, and for an
        archived version.

        What an earlier one found is forgotten.
        """
        idle = or_(Version.status != "validating", _unclaimed())
        change = update(Version).where(Version.id == version_id, Version.status != "archived", idle)
        begun = change.values(status="validating", claimed_until=until, report=[], signature=None)
        taken = affected(await self._session.execute(begun)) == 1
        if taken:
            await Revisions(self._session).bump(REVISION)
        return taken

    async def claim_stale(self, until: datetime) -> Version | None:
        """Take over one validation that nobody holds, oldest first, until `until`; comes with its model."""
        stale = select(Version.id).where(Version.status == "validating", _unclaimed()).order_by(Version.id)
        oldest = stale.limit(1).with_for_update(skip_locked=True).scalar_subquery()
        change = update(Version).where(Version.id == oldest)
        version_id = await self._session.scalar(change.values(claimed_until=until).returning(Version.id))
        if version_id is None:
            return None
        query = select(Version).where(Version.id == version_id).options(joinedload(Version.model))
        return await self._session.scalar(query.execution_options(populate_existing=True))

    async def hold(self, version: Version, until: datetime, report: Sequence[Mapping[str, Any]]) -> bool:
        """Keep a validation that is under way until `until`, with its report so far; False where it has ended."""
        change = update(Version).where(Version.id == version.id, Version.status == "validating")
        kept = change.values(claimed_until=until, report=[dict(row) for row in report])
        return affected(await self._session.execute(kept)) == 1

    async def finish(
        self,
        version_id: int,
        status: str,
        *,
        report: Sequence[dict[str, Any]],
        signature: dict[str, Any] | None = None,
    ) -> bool:
        """End a validation with `valid` or `invalid`; False where it is not under way any more."""
        change = (
            update(Version)
            .where(Version.id == version_id, Version.status == "validating")
            .values(status=status, report=[*report], signature=signature, claimed_until=None)
        )
        if affected(await self._session.execute(change)) == 0:
            return False
        await Revisions(self._session).bump(REVISION)
        return True

    async def move(self, version_id: int, old: str, new: str) -> bool:
        """Let a version that is `old` be `new`; False where it is not `old`."""
        change = update(Version).where(Version.id == version_id, Version.status == old).values(status=new)
        if affected(await self._session.execute(change)) == 0:
            return False
        await Revisions(self._session).bump(REVISION)
        return True

    async def delete(self, version: Version) -> None:
        """Remove a version with all that was made from it."""
        await self._session.delete(version)
        await self._session.flush()
        await Revisions(self._session).bump(REVISION)

    async def sha256_in_use(self, sha256: str) -> bool:
        """Whether any version, or what was derived from one, still needs the artifact with this address."""
        for table in (Version, DerivedArtifact):
            if await self._session.scalar(select(table.id).where(table.sha256 == sha256).limit(1)) is not None:
                return True
        return False

    async def addresses(self) -> AsyncIterator[str]:
        """The address of every artifact that a version, or what was derived from one, needs; some repeatedly."""
        for table in (Version, DerivedArtifact):
            last = 0
            while rows := (await self._session.execute(_after(table, last))).all():
                for row in rows:
                    yield row.sha256
                last = rows[-1].id

    async def _take_number(self, model_id: int) -> int:
        # One statement, whose row lock holds until the transaction ends: no number is given twice.
        change = update(Model).where(Model.id == model_id).values(next_version=Model.next_version + 1)
        taken: int | None = await self._session.scalar(change.returning(Model.next_version))
        if taken is None:
            raise ModelNotFound("There is no such model.")
        return taken - 1


def _after(table: type[Version] | type[DerivedArtifact], last: int) -> Select[int, str]:
    return select(table.id, table.sha256).where(table.id > last).order_by(table.id).limit(_STEP)


def _unclaimed() -> Any:
    return or_(Version.claimed_until.is_(None), Version.claimed_until < utc_now())
