"""Versions that nobody needs: put away, taken back, removed for good."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.control.deploying import find_version
from core.control.uploads import Uploads
from core.database.repositories.deployments import Deployments
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.models import Models
from core.database.repositories.optimisations import UNDER_WAY, Optimisations
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Version
from core.errors import Conflict
from core.kill_points import reach


async def archive(session: AsyncSession, name: str, number: int, actor: Actor) -> Version:
    """Put a valid version away: it stays with its file, but cannot be deployed, nor gone back to.

    Raises ModelNotFound, and Conflict while it is in service or where it is not valid.
    """
    return await _move(session, name, number, actor, "valid", "archived")


async def restore(session: AsyncSession, name: str, number: int, actor: Actor) -> Version:
    """Let an archived version be deployed again. Raises ModelNotFound, and Conflict where it is not archived."""
    return await _move(session, name, number, actor, "archived", "valid")


async def remove_version(database: Database, uploads: Uploads, name: str, number: int, actor: Actor) -> None:
    """Remove a version with its file, its converted forms and its searches. Its number is not given again.

    Raises ModelNotFound, and Conflict while it is in service, being checked or searched.
    """
    async with database.session() as session:
        there = await _addresses(session, await find_version(session, name, number))
    async with uploads.removing(there), database.transaction() as session:
        version = await _unused(session, name, number)
        if version.status == "validating":
            raise Conflict(f"Version {number} of {name} is being checked; wait for its checks to end.")
        searched = await Optimisations(session).latest(version.id)
        if searched is not None and searched.status in UNDER_WAY:
            raise Conflict(f"A search for version {number} of {name} is under way; wait for it, or cancel it.")
        late = await _addresses(session, version) - there
        await Versions(session).delete(version)
        await actor.note(session, "version.delete", f"{name}/{number}", {"before": {"sha256": version.sha256}})
        reach("remove.written")
    await uploads.forget(late)


async def _move(session: AsyncSession, name: str, number: int, actor: Actor, old: str, new: str) -> Version:
    version = await _unused(session, name, number)
    if not await Versions(session).move(version.id, old, new):
        raise Conflict(f"Version {number} of {name} is {version.status}; only one that is {old} can become {new}.")
    action = "version.archive" if new == "archived" else "version.restore"
    await actor.note(session, action, f"{name}/{number}", {"status": new, "before": {"status": old}})
    await session.refresh(version)
    return version


async def _unused(session: AsyncSession, name: str, number: int) -> Version:
    """The version, which no deployment begins to need before this transaction ends."""
    version = await find_version(session, name, number)
    await Models(session).lock(version.model_id)
    await session.refresh(version)
    desired = await Deployments(session).get(version.model_id)
    if desired is not None and desired.running:
        parts = [share for share in desired.spec["traffic"] if share["version"] == number]
        if parts:
            way = "as a shadow" if parts[0]["mode"] == "shadow" else "in service"
            raise Conflict(f"Version {number} of {name} is {way}; deploy another first.")
    return version


async def _addresses(session: AsyncSession, version: Version) -> set[str]:
    derived = await DerivedArtifacts(session).list([version.id])
    return {version.sha256, *(one.sha256 for one in derived)}
