"""One's own second factor: an authenticator app is set up, confirmed, and taken away again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Viewer, pages
from app.dashboard.page import Crumb, Page
from app.dashboard.qr import QrCode, qr_code
from app.dashboard.rendering import render
from app.dependencies import House, caller_of
from core.access.second_factor import Enrolment, SecondFactor
from core.errors import PlatformError

router = pages()
PATH: Final = "/dashboard/account/second-factor"


class PasswordForm(BaseModel):
    """Whoever sets it up must know the password."""

    current_password: str = Field(max_length=1024)


class CodeForm(BaseModel):
    """A code of the app, or where it is asked for to take it away, a recovery code."""

    code: str = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class SecondFactorPage(Page):
    """What there is, and the forms that fit it. Secrets and codes are shown right after they were made."""

    template: ClassVar[str] = "pages/account/second_factor.html"
    now: SecondFactor
    enrolment: Enrolment | None = None
    begun: bool = False
    """Whether a code is awaited."""
    codes: Sequence[str] = ()
    begin: Filled[PasswordForm] = field(default_factory=Filled)
    confirm: Filled[CodeForm] = field(default_factory=Filled)
    change: Filled[CodeForm] = field(default_factory=Filled)

    @property
    def title(self) -> str:
        """See Page."""
        return "Second factor"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Your account", "/dashboard/account"),)

    @property
    def qr(self) -> QrCode:
        """What the app's camera reads."""
        assert self.enrolment is not None
        return qr_code(self.enrolment.otpauth_uri)

    @property
    def groups(self) -> str:
        """The secret, to be typed."""
        secret = self.enrolment.secret if self.enrolment is not None else ""
        return " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))


@router.get("/account/second-factor")
async def show(request: Request, user: Viewer, house: House) -> Response:
    """Whether there is one, and how to get one."""
    return render(request, SecondFactorPage(await house.access.own_account.second_factor(user)))


@router.post("/account/second-factor/begin")
async def begin(request: Request, user: Viewer, house: House) -> Response:
    """Show the secret of a new one, this one time; a code of it is asked for next."""
    form = fill(PasswordForm, await request.form())
    own = house.access.own_account
    now = await own.second_factor(user)
    if form.value is not None:
        try:
            enrolment = await own.begin_second_factor(user, form.value.current_password, caller_of(request))
            return render(request, SecondFactorPage(now, enrolment, begun=True))
        except PlatformError as error:
            form = form.refused(error, "current_password")
    return render(request, SecondFactorPage(now, begin=form), 422)


@router.post("/account/second-factor/confirm")
async def confirm(request: Request, user: Viewer, house: House) -> Response:
    """Switch it on, and show the recovery codes this one time. The secret is not shown again: the app has it."""
    form = fill(CodeForm, await request.form())
    own = house.access.own_account
    if form.value is not None:
        try:
            codes = await own.confirm_second_factor(user, form.value.code, caller_of(request))
            return render(request, SecondFactorPage(await own.second_factor(user), codes=codes))
        except PlatformError as error:
            form = form.refused(error, "code")
    return render(request, SecondFactorPage(await own.second_factor(user), begun=True, confirm=form), 422)


@router.post("/account/second-factor/recovery-codes")
async def renew(request: Request, user: Viewer, house: House) -> Response:
    """New recovery codes, shown this one time; those that were left are void."""
    form = fill(CodeForm, await request.form())
    own = house.access.own_account
    if form.value is not None:
        try:
            codes = await own.renew_recovery_codes(user, form.value.code, caller_of(request))
            return render(request, SecondFactorPage(await own.second_factor(user), codes=codes))
        except PlatformError as error:
            form = form.refused(error, "code")
    return render(request, SecondFactorPage(await own.second_factor(user), change=form), 422)


@router.post("/account/second-factor/off")
async def off(request: Request, user: Viewer, house: House) -> Response:
    """Ask for no code any more, where one was given."""
    form = fill(CodeForm, await request.form())
    own = house.access.own_account
    if form.value is not None:
        try:
            await own.drop_second_factor(user, form.value.code, caller_of(request))
            response = RedirectResponse(PATH, 303)
            flash(request, response, "No code is asked for any more when you sign in.")
            return response
        except PlatformError as error:
            form = form.refused(error, "code")
    return render(request, SecondFactorPage(await own.second_factor(user), change=form), 422)
