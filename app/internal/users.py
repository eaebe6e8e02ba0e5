"""Users of the internal side; administrators only."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dependencies import Admin, Cursor, Limit, Reading, UnitOfWork, actor_of
from core.access.passwords import check_password, hash_password
from core.database.repositories.sessions import Sessions
from core.database.repositories.users import Users
from core.database.tables import User
from core.errors import Conflict, NotFound
from schemas.base import Page
from schemas.users import UserAnswer, UserCreate, UserPatch

router = APIRouter(prefix="/users", tags=["users"])


@router.get("", summary="List users")
async def list_users(_: Admin, session: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[UserAnswer]:
    """Users in the order of their names."""
    users, next_cursor = await Users(session).page(limit, cursor)
    return Page(items=[UserAnswer.model_validate(user) for user in users], next_cursor=next_cursor)


@router.post("", status_code=201, summary="Add a user")
async def add_user(request: Request, body: UserCreate, admin: Admin, session: UnitOfWork) -> UserAnswer:
    """Add someone who may sign in."""
    check_password(body.password)
    user = await Users(session).add(body.name, await hash_password(body.password), body.role)
    await actor_of(request, admin).note(session, "user.create", user.name, {"role": user.role})
    return UserAnswer.model_validate(user)


@router.patch("/{user_id}", summary="Change a user")
async def change_user(
    request: Request, user_id: int, body: UserPatch, admin: Admin, session: UnitOfWork
) -> UserAnswer:
    """Change role or password, disable or enable. Disabling and a new password end all sessions at once."""
    user = await _find(session, user_id)
    loses_admin = user.role == "admin" and (body.disabled is True or body.role not in (None, "admin"))
    if loses_admin and not user.disabled:
        await _keep_one_admin(session)
    changed = body.model_dump(exclude_none=True, exclude={"password"})
    for field, value in changed.items():
        setattr(user, field, value)
    if body.password is not None:
        check_password(body.password)
        user.password_hash = await hash_password(body.password)
        changed["password"] = "changed"  # noqa: S105  # says that it was, not what it is
    if body.disabled or body.password is not None:
        await Sessions(session).revoke_all_for(user.id)
    await session.flush()
    await session.refresh(user)
    await actor_of(request, admin).note(session, "user.update", user.name, changed)
    return UserAnswer.model_validate(user)


@router.delete("/{user_id}", status_code=204, summary="Remove a user")
async def remove_user(request: Request, user_id: int, admin: Admin, session: UnitOfWork) -> Response:
    """Remove a user with all sessions; the last administrator stays."""
    user = await _find(session, user_id)
    if user.role == "admin" and not user.disabled:
        await _keep_one_admin(session)
    await Users(session).delete(user)
    await actor_of(request, admin).note(session, "user.delete", user.name)
    return Response(status_code=204)


async def _find(session: UnitOfWork, user_id: int) -> User:
    user = await Users(session).get(user_id)
    if user is None:
        raise NotFound("There is no such user.")
    return user


async def _keep_one_admin(session: UnitOfWork) -> None:
    if await Users(session).count_active_admins() <= 1:
        raise Conflict("This is the last administrator; make someone else one first.")
