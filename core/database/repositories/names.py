"""Names that applications call: a model and a pipeline never share one."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database.repositories.revisions import Revisions
from core.database.tables import Model, Pipeline
from core.errors import Conflict

REVISION: Final = "names"


async def check_free(session: AsyncSession, name: str) -> None:
    """Raise Conflict where something has the name; until the transaction ends, nobody else is given one.

    The revision's row is the lock: whoever asks next waits for it, and then sees what was added.
    """
    await Revisions(session).bump(REVISION)
    if await session.scalar(select(Model.id).where(Model.name == name)) is not None:
        raise Conflict(f"There is a model called {name} already.")
    if await session.scalar(select(Pipeline.id).where(Pipeline.name == name)) is not None:
        raise Conflict(f"There is a pipeline called {name} already.")
