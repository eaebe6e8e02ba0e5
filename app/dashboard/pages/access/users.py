"""Users: list, add, change the role, disable, give a new password, end sessions, remove."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from fastapi import Path, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Crumb, Page, Section
from app.dashboard.pages.access.tabs import TABS
from app.dashboard.rendering import render
from app.dependencies import Cursor, House, Reading, actor_of
from core.control.user_changes import (
    add_user,
    change_user,
    end_sessions,
    find_user,
    hashed_password,
    remove_user,
    reset_second_factor,
)
from core.database.repositories.users import Users
from core.database.tables import Session, User
from core.errors import PlatformError
from schemas.users import RoleName

router = pages()
_LIST = "/dashboard/access/users"
_PAGE = 100
UserId = Annotated[int, Path(ge=1, le=2**31 - 1)]
ROLES = (
    ("viewer", "viewer: may look at all"),
    ("operator", "operator: models, deployments, playground too"),
    ("admin", "admin: everything"),
)


class UserForm(BaseModel):
    """Somebody new; the password is made here."""

    name: str
    role: RoleName = "viewer"


@dataclass(frozen=True, slots=True)
class UsersPage(Page):
    """The list, and the form for one more."""

    template: ClassVar[str] = "pages/access/users.html"
    section: ClassVar[Section] = ACCESS
    users: Sequence[User]
    cursor: str | None
    asked: str | None
    form: Filled[UserForm] = field(default_factory=Filled)
    roles: tuple[tuple[str, str], ...] = ROLES
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Users"


@dataclass(frozen=True, slots=True)
class UserPage(Page):
    """One user; with a password, right after it was made."""

    template: ClassVar[str] = "pages/access/user.html"
    section: ClassVar[Section] = ACCESS
    user: User
    sessions: Sequence[Session] = ()
    password: str = ""
    error: str = ""
    roles: tuple[tuple[str, str], ...] = ROLES

    @property
    def title(self) -> str:
        """See Page."""
        return self.user.name

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Access", ACCESS.path), Crumb("Users", _LIST))


@router.get("/access/users")
async def list_users(request: Request, _: Admin, session: Reading, cursor: Cursor = None) -> Response:
    """The list, by name."""
    users, next_cursor = await Users(session).page(_PAGE, cursor)
    return render(request, UsersPage(users, next_cursor, cursor))


@router.post("/access/users")
async def add(request: Request, admin: Admin, house: House) -> Response:
    """Add somebody, with a random password that is shown once and changed at the first sign-in."""
    form = fill(UserForm, await request.form())
    if form.value is not None:
        password = secrets.token_urlsafe(12)
        try:
            hashed = await hashed_password(password, form.value.name)
            async with house.database.transaction() as session:
                user = await add_user(
                    session, form.value.name, hashed, form.value.role, actor_of(request, admin), must_change=True
                )
            return render(request, UserPage(user, password=password))
        except PlatformError as error:
            form = form.refused(error, "name")
    async with house.database.session() as session:
        users, cursor = await Users(session).page(_PAGE)
        return render(request, UsersPage(users, cursor, None, form), 422)


@router.get("/access/users/{user_id}")
async def show(request: Request, user_id: UserId, _: Admin, house: House) -> Response:
    """One user."""
    return await _shown(request, house, user_id)


@router.post("/access/users/{user_id}/change")
async def change(request: Request, user_id: UserId, admin: Admin, house: House) -> Response:
    """Another role; disabled, or enabled again; whether another password is asked for at the next sign-in."""
    form = await request.form()
    changes: dict[str, object] = {}
    if form.get("role") in dict(ROLES):
        changes["role"] = form["role"]
    for name in ("disabled", "must_change_password"):
        if form.get(name) in ("true", "false"):
            changes[name] = form[name] == "true"
    try:
        async with house.database.transaction() as session:
            await change_user(session, user_id, changes, actor_of(request, admin))
    except PlatformError as error:
        return await _shown(request, house, user_id, error)
    return _done(request, user_id, "Changed; it holds from now on.")


@router.post("/access/users/{user_id}/password")
async def give_password(request: Request, user_id: UserId, admin: Admin, house: House) -> Response:
    """A random password, shown once, to be changed at the next sign-in; all sessions end."""
    password = secrets.token_urlsafe(12)
    hashed = await hashed_password(password, "")
    try:
        async with house.database.transaction() as session:
            must = {"must_change_password": True}
            user = await change_user(session, user_id, must, actor_of(request, admin), password_hash=hashed)
    except PlatformError as error:
        return await _shown(request, house, user_id, error)
    return render(request, UserPage(user, password=password))


@router.post("/access/users/{user_id}/sessions/end")
async def end(request: Request, user_id: UserId, admin: Admin, house: House) -> Response:
    """End all sessions of a user; of one's own all but this one."""
    async with house.database.transaction() as session:
        ended = await end_sessions(session, user_id, actor_of(request, admin), keep=admin.session_id)
    return _done(request, user_id, f"{ended} sessions have ended.")


@router.post("/access/users/{user_id}/second-factor/reset")
async def reset(request: Request, user_id: UserId, admin: Admin, house: House) -> Response:
    """Ask for no code any more, as when the app is lost."""
    async with house.database.transaction() as session:
        await reset_second_factor(session, user_id, actor_of(request, admin))
    return _done(request, user_id, "No code is asked for any more.")


@router.post("/access/users/{user_id}/remove")
async def remove(request: Request, user_id: UserId, admin: Admin, house: House) -> Response:
    """Remove somebody, where their name was typed."""
    said = (await request.form()).get("confirm")
    try:
        async with house.database.transaction() as session:
            user = await find_user(session, user_id)
            if said == user.name:
                await remove_user(session, user_id, actor_of(request, admin))
    except PlatformError as error:
        return await _shown(request, house, user_id, error)
    if said != user.name:
        return _done(request, user_id, "Nothing was done: that is not the name of this user.")
    response = RedirectResponse(_LIST, 303)
    flash(request, response, f"{user.name} is removed.")
    return response


async def _shown(request: Request, house: House, user_id: int, error: PlatformError | None = None) -> Response:
    async with house.database.session() as session:
        user = await find_user(session, user_id)
    sessions = await house.access.sessions.open_sessions(user_id)
    page = UserPage(user, sessions, error=error.message if error else "")
    return render(request, page, error.status if error else 200)


def _done(request: Request, user_id: int, message: str) -> Response:
    response = RedirectResponse(f"{_LIST}/{user_id}", 303)
    flash(request, response, message)
    return response
