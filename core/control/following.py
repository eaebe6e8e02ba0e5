"""Which recommendation `engine: auto` follows for a version: the newest, one chosen by hand, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import SYSTEM, Actor
from core.control.artifact_choice import machine_changed
from core.control.deploying import find_version
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.optimisations import Optimisations
from core.database.repositories.versions import Versions
from core.database.tables import Optimisation, Version
from core.errors import Conflict, NotFound


async def follow(
    session: AsyncSession, name: str, number: int, search: int | None, actor: Actor
) -> tuple[int, int | None]:
    """Follow that search's recommendation, or the newest one, from now on.

    Returns the search, and the generation of the deployment that has been changed to follow it; None where none
    had to be. Raises ModelNotFound, NotFound, Conflict for one that was measured on another machine.
    """
    version = await find_version(session, name, number)
    row = await _wanted(session, version, search)
    changed = machine_changed(row)
    if changed is not None:
        raise Conflict(f"The recommendation of search {row.id} is stale: {changed}. Search again.")
    await Optimisations(session).follow_only(version.id, row.id)
    generation = await _change(session, version, row.id, actor, {})
    detail = {"optimisation": row.id, "generation": generation}
    await actor.note(session, "version.follow", f"{name}/{number}", detail)
    return row.id, generation


async def unfollow(session: AsyncSession, name: str, number: int, actor: Actor) -> int | None:
    """Run the version as uploaded from now on, until a search is to be followed again.

    Returns the generation of the deployment that has been changed; None where none had to be. Raises
    ModelNotFound, NotFound.
    """
    version = await find_version(session, name, number)
    await Optimisations(session).follow_only(version.id, None)
    generation = await _change(session, version, None, actor, {})
    await actor.note(session, "version.unfollow", f"{name}/{number}", {"generation": generation})
    return generation


async def apply_recommendation(session: AsyncSession, optimisation_id: int) -> bool:
    """Let a deployment with `engine: auto` follow what was just found; False where there is none to change.

    Raises Conflict, ModelNotFound where the rows have gone meanwhile.
    """
    row = await Optimisations(session).get(optimisation_id)
    version = await session.get(Version, row.version_id) if row is not None else None
    if row is None or version is None or row.recommendation is None or not row.follow:
        return False
    generation = await _change(session, version, row.id, SYSTEM, {})
    if generation is None:
        return False
    detail = {"generation": generation, "optimisation": optimisation_id, "version": version.version}
    await SYSTEM.note(session, "deployment.optimise", await _name(session, version.model_id), detail)
    return True


async def fall_back(session: AsyncSession, model_id: int, number: int, search: int, fault: str) -> int | None:
    """Run a version as uploaded because it failed in the form that the search recommends, which is marked so.

    `fault` says what it did, as the end of a sentence. Returns the new generation; None where another form is
    desired already.
    """
    version = await Versions(session).get(model_id, number)
    row = await Optimisations(session).get(search)
    if version is None or row is None or row.fault:
        return None
    await Optimisations(session).mark(search, fault)
    reason = f"Version {number} runs as uploaded again, not as search {search} recommends: {fault}."
    generation = await _change(session, version, None, SYSTEM, {"rolled_back": reason})
    detail = {"generation": generation, "optimisation": search, "version": number, "reason": reason}
    await SYSTEM.note(session, "deployment.fall_back", await _name(session, model_id), detail)
    return generation


async def _name(session: AsyncSession, model_id: int) -> str:
    """As the audit log calls the model; empty where it has gone meanwhile."""
    model = await Models(session).get(model_id)
    return "" if model is None else model.name


async def _wanted(session: AsyncSession, version: Version, search: int | None) -> Optimisation:
    searches = Optimisations(session)
    row = await (searches.newest_done(version.id) if search is None else searches.get(search))
    if row is None or row.version_id != version.id:
        which = "has no recommendation" if search is None else f"has no search {search}"
        raise NotFound(f"Version {version.version} {which}.")
    if row.recommendation is None or row.status != "done":
        raise NotFound(f"Search {row.id} has no recommendation.")
    return row


async def _change(
    session: AsyncSession, version: Version, search: int | None, actor: Actor, told: Mapping[str, Any]
) -> int | None:
    """Desire the version in the form that the search recommends, or as uploaded; answers the new generation.

    None where no deployment with `engine: auto` has it in service, or where it is so already.
    """
    await Models(session).lock(version.model_id)  # what is desired must not change between here and the write
    deployment = await Deployments(session).get(version.model_id)
    if deployment is None or not deployment.running or deployment.spec.get("engine", "auto") != "auto":
        return None
    if not any(int(share["version"]) == version.version for share in deployment.spec["traffic"]):
        return None
    before = deployment.spec.get("optimised") or {}
    optimised = {number: one for number, one in before.items() if number != str(version.version)}
    if search is not None:
        optimised[str(version.version)] = search
    if optimised == before:
        return None
    spec = {key: value for key, value in deployment.spec.items() if key != "rolled_back"}
    put = await Deployments(session).put(version.model_id, {**spec, **told, "optimised": optimised}, actor.name)
    return put.generation
