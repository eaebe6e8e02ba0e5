"""Access tokens: list, make, see, change, rotate, revoke."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, ClassVar, Final

from fastapi import Path, Query, Request
from pydantic import Field, field_validator, model_validator
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.gauges import Gauge, spending
from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Crumb, Page, Section
from app.dashboard.pages.access.limits_form import LimitsForm
from app.dashboard.pages.access.tabs import TABS, lines
from app.dashboard.pages.access.usage import Asked, table
from app.dashboard.rendering import render
from app.dependencies import Cursor, House, Reading, actor_of
from core.control.token_changes import (
    OPERATIONS,
    change_token,
    create_token,
    find_token,
    revoke_token,
    rotate_token,
)
from core.control.usage_reports import Group, Report
from core.database.repositories.tenants import Tenants
from core.database.repositories.tokens import Tokens
from core.database.tables import DEFAULT_TENANT, AccessToken, utc_now
from core.errors import PlatformError

router = pages()
_LIST = "/dashboard/access/tokens"
_PAGE = 50
_SOON = timedelta(days=7)
TokenId = Annotated[int, Path(ge=1, le=2**31 - 1)]
LIVES = (("", "never"), ("1", "in a day"), ("30", "in 30 days"), ("90", "in 90 days"), ("365", "in a year"))
KEEP: Final = "keep"
GRACES = (("0", "at once"), ("3600", "in an hour"), ("86400", "in a day"), ("604800", "in a week"))


def state_of(token: AccessToken) -> str:
    """A token's state in a word."""
    now = utc_now()
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "expired"
    return "expiring" if token.expires_at is not None and token.expires_at < now + _SOON else "active"


@dataclass(frozen=True, slots=True)
class Row:
    """A token in the list."""

    token: AccessToken
    state: str
    gauges: Sequence[Gauge]
    hours: tuple[int, ...]
    """Requests in each of the last 24 hours."""


@dataclass(frozen=True, slots=True)
class TokensPage(Page):
    """The list."""

    template: ClassVar[str] = "pages/access/tokens.html"
    section: ClassVar[Section] = ACCESS
    rows: Sequence[Row]
    cursor: str | None
    asked: str | None
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Tokens"


class TokenForm(LimitsForm):
    """A new token, or one as it shall be; what is empty does not restrict."""

    name: str = Field(min_length=1, max_length=128)
    tenant: str = Field(DEFAULT_TENANT, max_length=64)
    models: list[str] | None = None
    operations: list[str] | None = None
    days: int | None = Field(None, ge=1, le=3650)
    ends_on: date | None = Field(None, lt=date(2200, 1, 1))
    """The last day, in UTC; counts where it is given."""
    keep_end: bool = False
    """Whether it ends when it did before, whatever `days` says."""
    ip_allow: list[str] | None = None
    priority: int | None = Field(None, ge=0, le=9)

    @field_validator("models", "operations", "ip_allow", mode="before")
    @classmethod
    def _by_commas(cls, value: str | list[str] | None) -> list[str] | None:
        return lines(value)

    @field_validator("ends_on")
    @classmethod
    def _to_come(cls, value: date | None) -> date | None:
        if value is not None and value < datetime.now(UTC).date():
            raise ValueError("That day is over.")
        return value

    @model_validator(mode="before")
    @classmethod
    def _end(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("days") == KEEP:
            return {**{key: value for key, value in values.items() if key != "days"}, "keep_end": True}
        return values

    def fields(self) -> dict[str, object]:
        """As `create_token` and `change_token` take them."""
        said = self.model_dump(exclude={"days", "ends_on", "keep_end"})
        if self.ends_on is not None:
            said["expires_at"] = datetime.combine(self.ends_on + timedelta(days=1), time(), UTC)
        elif not self.keep_end:
            said["expires_at"] = None if self.days is None else datetime.now(UTC) + timedelta(days=self.days)
        return said


@dataclass(frozen=True, slots=True)
class FormPage(Page):
    """The form: of a new token, or of one that there is."""

    template: ClassVar[str] = "pages/access/token_form.html"
    section: ClassVar[Section] = ACCESS
    tenants: Sequence[str]
    form: Filled[TokenForm] = field(default_factory=Filled)
    token: AccessToken | None = None
    for_tenant: str = DEFAULT_TENANT
    operations: tuple[str, ...] = OPERATIONS

    @property
    def title(self) -> str:
        """See Page."""
        return "Change" if self.token is not None else "New token"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        above = (Crumb("Access", ACCESS.path), Crumb("Tokens", _LIST))
        return above if self.token is None else (*above, Crumb(self.token.name, self.path))

    @property
    def path(self) -> str:
        """Where the token is."""
        return f"{_LIST}/{self.token.id}" if self.token is not None else f"{_LIST}/new"

    @property
    def action(self) -> str:
        """Where the form is sent."""
        return f"{self.path}/change" if self.token is not None else self.path

    @property
    def tenant_choices(self) -> list[tuple[str, str]]:
        """The names of tenants, as choices."""
        return [(name, name) for name in self.tenants]

    @property
    def lives(self) -> tuple[tuple[str, str], ...]:
        """When it can end."""
        return LIVES if self.token is None else ((KEEP, "as it is now"), *LIVES)


@dataclass(frozen=True, slots=True)
class TokenPage(Page):
    """One token; with its secret, right after it was made."""

    template: ClassVar[str] = "pages/access/token.html"
    section: ClassVar[Section] = ACCESS
    token: AccessToken
    state: str
    gauges: Sequence[Gauge]
    used: Report
    usual_rate: str | None
    secret: str = ""
    curl: str = ""
    error: str = ""
    graces: tuple[tuple[str, str], ...] = GRACES

    @property
    def title(self) -> str:
        """See Page."""
        return self.token.name

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Access", ACCESS.path), Crumb("Tokens", _LIST))

    def narrower(self, row: Group) -> Mapping[str, str]:
        """The usage of one of its models."""
        return Asked(by="tenant", token=self.token.id, model=row.key).query


@router.get("/access")
async def access(_: Admin) -> Response:
    """Access begins with its tokens."""
    return RedirectResponse(_LIST, 303)


@router.get("/access/tokens")
async def list_tokens(
    request: Request, _: Admin, house: House, session: Reading, cursor: Cursor = None
) -> Response:
    """The list, newest first."""
    tokens, next_cursor = await Tokens(session).page(_PAGE, cursor)
    spent = await spending(session, "token", [token.id for token in tokens])
    rate = house.settings.access.token_rate
    rows = [
        Row(token, state_of(token), spent.gauges(house.limiter, token.id, token, rate), spent.spark(token.id))
        for token in tokens
    ]
    return render(request, TokensPage(rows, next_cursor, cursor))


@router.get("/access/tokens/new")
async def ask_for_token(
    request: Request, _: Admin, session: Reading, tenant: Annotated[str, Query(max_length=64)] = DEFAULT_TENANT
) -> Response:
    """The form, for a tenant."""
    return render(request, FormPage(await _tenants(session), for_tenant=tenant))


@router.post("/access/tokens/new")
async def make_token(request: Request, user: Admin, house: House) -> Response:
    """Make a token, and show its secret this one time."""
    form = fill(TokenForm, await request.form())
    if form.value is None:
        return await _form_again(request, house, form)
    try:
        async with house.database.transaction() as session:
            token, secret = await create_token(session, form.value.fields(), actor_of(request, user))
    except PlatformError as error:
        return await _form_again(request, house, form.refused(error), error.status)
    await house.tokens.changed()
    return await _shown(request, house, token, secret=secret)


@router.get("/access/tokens/{token_id}")
async def show_token(request: Request, token_id: TokenId, _: Admin, house: House, session: Reading) -> Response:
    """One token."""
    return await _shown(request, house, await find_token(session, token_id))


@router.get("/access/tokens/{token_id}/change")
async def ask_for_changes(request: Request, token_id: TokenId, _: Admin, session: Reading) -> Response:
    """The form, as the token is."""
    token = await find_token(session, token_id)
    return render(request, FormPage(await _tenants(session), token=token))


@router.post("/access/tokens/{token_id}/change")
async def change(request: Request, token_id: TokenId, user: Admin, house: House) -> Response:
    """Change what the form has, in force at once; the secret stays."""
    form = fill(TokenForm, await request.form())
    async with house.database.session() as session:
        token = await find_token(session, token_id)
    if form.value is None:
        return await _form_again(request, house, form, token=token)
    try:
        async with house.database.transaction() as session:
            token = await change_token(session, token_id, form.value.fields(), actor_of(request, user))
    except PlatformError as error:
        return await _form_again(request, house, form.refused(error), error.status, token)
    await house.tokens.changed()
    response = RedirectResponse(f"{_LIST}/{token_id}", 303)
    flash(request, response, f"The token {token.name} is changed; its secret is the same.")
    return response


@router.post("/access/tokens/{token_id}/rotate")
async def rotate(request: Request, token_id: TokenId, user: Admin, house: House) -> Response:
    """Give it a new secret, shown this one time."""
    grace = str((await request.form()).get("grace_s", "0"))
    grace_s = int(grace) if grace in dict(GRACES) else 0
    async with house.database.transaction() as session:
        token, secret = await rotate_token(session, token_id, actor_of(request, user), grace_s=grace_s)
    await house.tokens.changed()
    return await _shown(request, house, token, secret=secret)


@router.post("/access/tokens/{token_id}/revoke")
async def revoke(request: Request, token_id: TokenId, user: Admin, house: House) -> Response:
    """End it for good, where its name was typed."""
    said = (await request.form()).get("confirm")
    async with house.database.transaction() as session:
        token = await find_token(session, token_id)
        if said == token.name:
            await revoke_token(session, token_id, actor_of(request, user))
    if said != token.name:
        error = "Nothing was done: that is not the name of this token."
        return await _shown(request, house, token, error=error)
    await house.tokens.changed()
    response = RedirectResponse(_LIST, 303)
    flash(request, response, f"The token {token.name} is revoked; calls with it are refused from now on.")
    return response


async def _shown(
    request: Request, house: House, token: AccessToken, *, secret: str = "", error: str = ""
) -> Response:
    address = shlex.quote(f"{request.url.scheme}://{request.url.netloc}/api/v1/models")
    curl = f"curl -H 'X-Access-Token: {secret}' {address}" if secret else ""
    rate = house.settings.access.token_rate
    async with house.database.session() as session:
        spent = await spending(session, "token", [token.id])
        used = await table(session, Asked(by="model", token=token.id))
    gauges = spent.gauges(house.limiter, token.id, token, rate)
    page = TokenPage(token, state_of(token), gauges, used, rate, secret, curl, error)
    return render(request, page, 422 if error else 200)


async def _form_again(
    request: Request, house: House, form: Filled[TokenForm], status: int = 422, token: AccessToken | None = None
) -> Response:
    async with house.database.session() as session:
        return render(request, FormPage(await _tenants(session), form, token), status)


async def _tenants(session: AsyncSession) -> list[str]:
    return [tenant.name for tenant in await Tenants(session).all()]
