"""The newest search of a version: find it, end it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.control.deploying import find_version
from core.database.repositories.optimisations import UNDER_WAY, Optimisations
from core.database.tables import Optimisation
from core.errors import NotFound


async def latest(session: AsyncSession, model: str, number: int) -> Optimisation:
    """The newest search of a version. Raises ModelNotFound, NotFound."""
    row = await Optimisations(session).latest((await find_version(session, model, number)).id)
    if row is None:
        raise NotFound(f"Version {number} of {model} has never been optimised.")
    return row


async def cancel(session: AsyncSession, model: str, number: int, actor: Actor) -> None:
    """End a version's newest search, if it has not ended. Raises ModelNotFound, NotFound."""
    row = await latest(session, model, number)
    if row.status in UNDER_WAY:
        await Optimisations(session).request_cancel(row)
        await actor.note(session, "version.optimise_cancel", f"{model}/{number}", {"optimisation": row.id})
