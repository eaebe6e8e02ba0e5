"""What belongs to whoever is signed in: password, sessions, theme, signing out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from fastapi import Path, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import THEMES, flash, forget_session, keep_theme
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Viewer, pages
from app.dashboard.page import Crumb, Page
from app.dashboard.rendering import render
from app.dashboard.signing_in import HOME
from app.dependencies import House, actor_of, caller_of
from core.access.roles import Role
from core.access.second_factor import SecondFactor
from core.access.sessions import Principal, Stage
from core.database.repositories.sessions import Sessions
from core.database.tables import Session
from core.errors import NotFound, PlatformError, Unauthenticated

router = pages()
_ACCOUNT = "/dashboard/account"
SessionId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@dataclass(frozen=True, slots=True)
class AccountPage(Page):
    """Who one is, and where one is signed in."""

    template: ClassVar[str] = "pages/account/page.html"
    name: str
    role: Role
    own_session: str
    second_factor: SecondFactor
    sessions: Sequence[Session]

    @property
    def title(self) -> str:
        """See Page."""
        return "Your account"


class PasswordForm(BaseModel):
    """A change of one's own password."""

    current_password: str = Field(max_length=1024)
    new_password: str = Field(max_length=1024)
    again: str = Field("", max_length=1024)


@dataclass(frozen=True, slots=True)
class PasswordPage(Page):
    """Changing one's own password, wanted or not."""

    template: ClassVar[str] = "pages/account/password.html"
    forced: bool
    form: Filled[PasswordForm] = field(default_factory=Filled)

    @property
    def title(self) -> str:
        """See Page."""
        return "Choose your own password" if self.forced else "Change your password"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Your account", _ACCOUNT),)


@router.get("/account")
async def account(request: Request, user: Viewer, house: House) -> Response:
    """One's account."""
    sessions = await house.access.sessions.open_sessions(user.user_id)
    second = await house.access.own_account.second_factor(user)
    return render(request, AccountPage(user.name, user.role, user.session_id, second, sessions))


@router.get("/account/password")
async def ask_for_password(request: Request, user: Viewer) -> Response:
    """The form."""
    return render(request, PasswordPage(_forced(user)))


@router.post("/account/password")
async def change_password(request: Request, user: Viewer, house: House) -> Response:
    """Change one's password; other sessions end."""
    form = fill(PasswordForm, await request.form())
    if form.value is not None:
        form = await _changed(request, user, house, form, form.value)
    if form.value is None:
        return render(request, PasswordPage(_forced(user), form), 422)
    response = RedirectResponse(HOME if _forced(user) else _ACCOUNT, 303)
    flash(request, response, "Your password is changed. Other sessions of yours have ended.")
    return response


async def _changed(
    request: Request, user: Principal, house: House, form: Filled[PasswordForm], said: PasswordForm
) -> Filled[PasswordForm]:
    if not secrets.compare_digest(said.new_password.encode(), said.again.encode()):
        return Filled(form.texts, {"again": "This is not the same as the new password."})
    try:
        await house.access.own_account.change_password(
            user, said.current_password, said.new_password, caller_of(request)
        )
    except Unauthenticated as error:
        return form.refused(error, "current_password")
    except PlatformError as error:
        return form.refused(error, "new_password")
    return form


def _forced(user: Principal) -> bool:
    return user.stage is Stage.PASSWORD


@router.post("/account/sessions/{session_id}/end")
async def end_session(request: Request, session_id: SessionId, user: Viewer, house: House) -> Response:
    """End another session of one's own."""
    async with house.database.transaction() as session:
        found = await Sessions(session).get(session_id)
        if found is None or found.user_id != user.user_id or not await Sessions(session).revoke(session_id):
            raise NotFound("There is no such session.")
        await actor_of(request, user).note(session, "auth.session_end", user.name)
    response = RedirectResponse(_ACCOUNT, 303)
    flash(request, response, "The session has ended.")
    return response


@router.post("/sign-out")
async def sign_out(request: Request, user: Viewer, house: House) -> Response:
    """End this session, on the server too."""
    await house.access.own_account.sign_out(user, caller_of(request))
    response = RedirectResponse("/login", 303)
    forget_session(response)
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


@router.post("/theme")
async def choose_theme(request: Request, _: Viewer) -> Response:
    """Light, dark, or as the system is; a script does the same without asking us."""
    form = await request.form()
    chosen, back = str(form.get("theme", "")), str(form.get("back", ""))
    inside = back.startswith("/dashboard/") and back.isprintable() and "\\" not in back
    response = RedirectResponse(back if inside else HOME, 303)
    if chosen in THEMES:
        keep_theme(response, chosen)
    return response
