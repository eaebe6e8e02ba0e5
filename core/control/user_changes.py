"""Changes of users: add, change, remove, reset. The HTTP side and the command line share them.

Passwords come hashed: hashing is slow on purpose, and a transaction holds others up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.access.passwords import check_password, hash_password
from core.control.actor import Actor, before_of
from core.control.names import check_user_name
from core.database.repositories import Sessions, Users
from core.database.tables import User
from core.errors import Conflict, NotFound


async def hashed_password(password: str, name: str) -> str:
    """The hash of a password that the user of that name may have. Raises Unprocessable."""
    check_password(password, name)
    return await hash_password(password)


async def find_user(session: AsyncSession, key: int | str) -> User:
    """The user with that id, or of that name. Raises NotFound."""
    users = Users(session)
    user = await users.get(key) if isinstance(key, int) else await users.by_name(key)
    if user is None:
        raise NotFound("There is no such user.")
    return user


async def add_user(
    session: AsyncSession, name: str, password_hash: str, role: str, actor: Actor, *, must_change: bool = False
) -> User:
    """Add someone who may sign in. Raises Conflict where the name is taken, Unprocessable."""
    check_user_name(name)
    user = await Users(session).add(name, password_hash, role, must_change_password=must_change)
    await actor.note(session, "user.create", name, {"role": role, "must_change_password": must_change})
    return user


async def change_user(
    session: AsyncSession,
    key: int | str,
    changes: Mapping[str, Any],
    actor: Actor,
    *,
    password_hash: str | None = None,
) -> User:
    """Change `role`, `disabled`, `must_change_password` or the password.

    Disabling and a new password end all sessions at once. Raises NotFound, or Conflict for the last administrator.
    """
    takes_admin = changes.get("disabled") is True or changes.get("role") not in (None, "admin")
    user = await _keeping_one_admin(session, key) if takes_admin else await find_user(session, key)
    before = before_of(user, changes)
    for field, value in changes.items():
        setattr(user, field, value)
    told = dict(changes)
    if password_hash is not None:
        user.password_hash = password_hash
        told["password"] = "changed"  # noqa: S105  # nosec B105  # says that it was, not what it is
    if changes.get("disabled") or password_hash is not None:
        await Sessions(session).revoke_all_for(user.id)
    await session.flush()
    await session.refresh(user)
    await actor.note(session, "user.update", user.name, {**told, "before": before})
    return user


async def remove_user(session: AsyncSession, key: int | str, actor: Actor) -> User:
    """Remove a user with all sessions. Raises NotFound, or Conflict for the last administrator."""
    user = await _keeping_one_admin(session, key)
    await Users(session).delete(user)
    await actor.note(session, "user.delete", user.name, {"before": before_of(user, ("role", "disabled"))})
    return user


async def reset_second_factor(session: AsyncSession, key: int | str, actor: Actor) -> User:
    """Ask a user for no code any more, and end their sessions. Raises NotFound, or Conflict where none was."""
    user = await find_user(session, key)
    if not await Users(session).drop_second_factor(user):
        raise Conflict("This user has no second factor.")
    await Sessions(session).revoke_all_for(user.id)
    told = {"second_factor": False, "before": {"second_factor": True}}
    await actor.note(session, "user.totp_reset", user.name, told)
    return user


async def end_sessions(session: AsyncSession, key: int | str, actor: Actor, *, keep: str | None = None) -> int:
    """End all sessions of a user but `keep`; answers how many. Raises NotFound."""
    user = await find_user(session, key)
    ended = await Sessions(session).revoke_all_for(user.id, keep=keep)
    await actor.note(session, "user.sessions_end", user.name, {"ended": ended})
    return ended


async def _keeping_one_admin(session: AsyncSession, key: int | str) -> User:
    user = await find_user(session, key)
    is_last = await Users(session).is_last_admin(user.id)
    await session.refresh(user)  # as it is now that nobody else can change it
    if is_last:
        raise Conflict("This is the last administrator; make someone else one first.")
    return user
