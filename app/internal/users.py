"""Users of the internal side; administrators only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.dependencies import Admin, Cursor, House, Limit, Reading, UnitOfWork, actor_of
from app.internal.sessions import session_page
from core.control import user_changes
from core.control.user_changes import find_user, hashed_password
from core.database.repositories.users import Users
from schemas.auth import SessionAnswer
from schemas.base import Page
from schemas.users import UserAnswer, UserCreate, UserPatch

router = APIRouter(prefix="/users", tags=["users"])

UserId = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("", summary="List users")
async def list_users(_: Admin, session: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[UserAnswer]:
    """Users in the order of their names."""
    users, next_cursor = await Users(session).page(limit, cursor)
    return Page(items=[UserAnswer.model_validate(user) for user in users], next_cursor=next_cursor)


@router.post("", status_code=201, summary="Add a user")
async def add_user(request: Request, body: UserCreate, admin: Admin, house: House) -> UserAnswer:
    """Add someone who may sign in."""
    hashed = await hashed_password(body.password, body.name)
    actor = actor_of(request, admin)
    async with house.database.transaction() as session:
        user = await user_changes.add_user(
            session, body.name, hashed, body.role, actor, must_change=body.must_change_password
        )
        return UserAnswer.model_validate(user)


@router.patch("/{user_id}", summary="Change a user")
async def change_user(
    request: Request, user_id: UserId, body: UserPatch, admin: Admin, house: House
) -> UserAnswer:
    """Change role or password, disable or enable. Disabling and a new password end all sessions at once."""
    hashed = None
    if body.password is not None:
        async with house.database.session() as session:
            name = (await find_user(session, user_id)).name
        hashed = await hashed_password(body.password, name)
    changes = body.model_dump(exclude_none=True, exclude={"password"})
    actor = actor_of(request, admin)
    async with house.database.transaction() as session:
        user = await user_changes.change_user(session, user_id, changes, actor, password_hash=hashed)
        return UserAnswer.model_validate(user)


@router.delete("/{user_id}", status_code=204, summary="Remove a user")
async def remove_user(request: Request, user_id: UserId, admin: Admin, session: UnitOfWork) -> Response:
    """Remove a user with all sessions; the last administrator stays."""
    await user_changes.remove_user(session, user_id, actor_of(request, admin))
    return Response(status_code=204)


@router.get("/{user_id}/sessions", summary="A user's sessions")
async def list_sessions(user_id: UserId, admin: Admin, session: Reading, house: House) -> Page[SessionAnswer]:
    """Where a user is signed in, the session used last first; at most 1000."""
    await find_user(session, user_id)
    return session_page(await house.access.sessions.open_sessions(user_id), admin.session_id)


@router.delete("/{user_id}/sessions", status_code=204, summary="End a user's sessions")
async def end_sessions(request: Request, user_id: UserId, admin: Admin, session: UnitOfWork) -> Response:
    """End all sessions of a user, at once; of one's own, all but this one."""
    await user_changes.end_sessions(session, user_id, actor_of(request, admin), keep=admin.session_id)
    return Response(status_code=204)


@router.delete("/{user_id}/totp", status_code=204, summary="Reset a user's second factor")
async def reset_second_factor(request: Request, user_id: UserId, admin: Admin, session: UnitOfWork) -> Response:
    """Ask the user for no code any more, as when the app is lost; ends all sessions of that user."""
    await user_changes.reset_second_factor(session, user_id, actor_of(request, admin))
    return Response(status_code=204)
