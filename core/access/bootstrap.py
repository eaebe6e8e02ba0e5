"""The first user of an empty database."""

from __future__ import annotations

import secrets

from sqlalchemy.ext.asyncio import AsyncSession

from core.access.passwords import hash_password
from core.access.roles import Role
from core.database.repositories import Audit, Users
from core.database.session import Database
from core.errors import Conflict

NAME = "admin"


async def ensure_first_admin(database: Database, password: str | None) -> str | None:
    """Create the user `admin` where there is no administrator; safe in several processes at once.

    Without `password` a random one is made and returned, to be shown once, and to be changed before anything else;
    otherwise returns None.
    Raises Unprocessable where `password` is too short.
    """
    async with database.session() as session:
        if await _has_admin(session):
            return None
    made = None if password else secrets.token_urlsafe(12)
    password_hash = await hash_password(password or made or "")
    return made if await _add(database, password_hash, must_change=made is not None) else None


async def _has_admin(session: AsyncSession) -> bool:
    users = Users(session)
    return await users.count_active_admins() > 0 or await users.by_name(NAME) is not None


async def _add(database: Database, password_hash: str, *, must_change: bool) -> bool:
    async with database.transaction() as session:
        try:
            await Users(session).add(NAME, password_hash, Role.ADMIN, must_change_password=must_change)
        except Conflict:  # another process was first
            return False
        detail = {"role": str(Role.ADMIN), "must_change_password": must_change}
        await Audit(session).add("system", "user.create", NAME, detail=detail)
        return True
