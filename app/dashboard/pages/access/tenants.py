"""Tenants: list, make, change limits, pause, remove; what each has used, and which tokens it owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from fastapi import Path, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.gauges import Gauge, Spending, spending
from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Crumb, Page, Section
from app.dashboard.pages.access.limits_form import LimitsForm
from app.dashboard.pages.access.tabs import TABS
from app.dashboard.pages.access.usage import Asked, table
from app.dashboard.rendering import render
from app.dependencies import Cursor, House, Reading, actor_of
from core.control.tenant_changes import change_tenant, create_tenant, delete_tenant, find_tenant
from core.control.usage_reports import Group, Report
from core.database.repositories.tenants import Tenants
from core.database.repositories.tokens import Tokens
from core.database.tables import DEFAULT_TENANT, AccessToken, Tenant
from core.errors import PlatformError

router = pages()
TENANTS: Final = "/dashboard/access/tenants"
MOST_TOKENS: Final = 100
_PAGE: Final = 50
TenantId = Annotated[int, Path(ge=1, le=2**31 - 1)]


class ChangeForm(LimitsForm):
    """A tenant's note and limits."""

    note: str = Field("", max_length=200)


class TenantForm(ChangeForm):
    """A new tenant."""

    name: str = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class TenantsPage(Page):
    """The list."""

    template: ClassVar[str] = "pages/access/tenants.html"
    section: ClassVar[Section] = ACCESS
    rows: Sequence[tuple[Tenant, int, list[Gauge]]]
    """Each with how many tokens it owns, and its limits."""
    spending: Spending
    cursor: str | None
    asked: str | None
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Tenants"


@dataclass(frozen=True, slots=True)
class NewTenantPage(Page):
    """The form."""

    template: ClassVar[str] = "pages/access/new_tenant.html"
    section: ClassVar[Section] = ACCESS
    form: Filled[TenantForm] = field(default_factory=Filled)

    @property
    def title(self) -> str:
        """See Page."""
        return "New tenant"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Access", ACCESS.path), Crumb("Tenants", TENANTS))


@dataclass(frozen=True, slots=True)
class TenantPage(Page):
    """One tenant: its limits and how far they are used, its tokens, what it has used."""

    template: ClassVar[str] = "pages/access/tenant.html"
    section: ClassVar[Section] = ACCESS
    tenant: Tenant
    gauges: Sequence[Gauge]
    tokens: Sequence[AccessToken]
    more_tokens: bool
    used: Report
    form: Filled[ChangeForm] = field(default_factory=Filled)
    error: str = ""

    @property
    def title(self) -> str:
        """See Page."""
        return self.tenant.name

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Access", ACCESS.path), Crumb("Tenants", TENANTS))

    @property
    def path(self) -> str:
        """Its address."""
        return f"{TENANTS}/{self.tenant.id}"

    @property
    def stays(self) -> bool:
        """Whether it can never be removed."""
        return self.tenant.name == DEFAULT_TENANT

    @property
    def live_tokens(self) -> int:
        """How many of its tokens are not revoked."""
        return sum(token.revoked_at is None for token in self.tokens)

    def narrower(self, row: Group) -> Mapping[str, str]:
        """The usage of one of its models."""
        return Asked(by="token", tenant=self.tenant.name, model=row.key).query


@router.get("/access/tenants")
async def list_tenants(
    request: Request, _: Admin, house: House, session: Reading, cursor: Cursor = None
) -> Response:
    """The list, by name."""
    found, next_cursor = await Tenants(session).page(_PAGE, cursor)
    names = [tenant.name for tenant in found]
    owned = await Tokens(session).live_by_tenant(names)
    spent = await spending(session, "tenant", names)
    rows = [(one, owned.get(one.name, 0), spent.gauges(house.limiter, one.name, one)) for one in found]
    return render(request, TenantsPage(rows, spent, next_cursor, cursor))


@router.get("/access/tenants/new")
async def ask_for_tenant(request: Request, _: Admin) -> Response:
    """The form."""
    return render(request, NewTenantPage())


@router.post("/access/tenants/new")
async def make_tenant(request: Request, user: Admin, house: House) -> Response:
    """Make a tenant, which owns no tokens yet."""
    form = fill(TenantForm, await request.form())
    if form.value is None:
        return render(request, NewTenantPage(form), 422)
    fields = form.value.model_dump(exclude={"name"})
    try:
        async with house.database.transaction() as session:
            tenant = await create_tenant(session, form.value.name, fields, actor_of(request, user))
    except PlatformError as error:
        return render(request, NewTenantPage(form.refused(error, "name")), error.status)
    await house.tenants.changed()
    return _done(request, f"{TENANTS}/{tenant.id}", f"The tenant {tenant.name} is made. Give it a token next.")


@router.get("/access/tenants/{tenant_id}")
async def show(request: Request, tenant_id: TenantId, _: Admin, house: House) -> Response:
    """One tenant."""
    return await _shown(request, house, tenant_id)


@router.post("/access/tenants/{tenant_id}")
async def change(request: Request, tenant_id: TenantId, user: Admin, house: House) -> Response:
    """Change the note and all limits, at once."""
    form = fill(ChangeForm, await request.form())
    if form.value is None:
        return await _shown(request, house, tenant_id, form, status=422)
    await _change(request, house, tenant_id, form.value.model_dump(), user)
    return _done(request, f"{TENANTS}/{tenant_id}", "Changed; the limits are in force.")


@router.post("/access/tenants/{tenant_id}/pause")
async def pause(request: Request, tenant_id: TenantId, user: Admin, house: House) -> Response:
    """Refuse all of its tokens from now on, or no longer."""
    paused = (await request.form()).get("disabled") == "true"
    await _change(request, house, tenant_id, {"disabled": paused}, user)
    said = "All tokens of this tenant are refused from now on." if paused else "Its tokens are let in again."
    return _done(request, f"{TENANTS}/{tenant_id}", said)


@router.post("/access/tenants/{tenant_id}/remove")
async def remove(request: Request, tenant_id: TenantId, user: Admin, house: House) -> Response:
    """Remove it, where its name was typed and it owns no tokens."""
    said = (await request.form()).get("confirm")
    try:
        async with house.database.transaction() as session:
            tenant = await find_tenant(session, tenant_id)
            if said == tenant.name:
                await delete_tenant(session, tenant, actor_of(request, user))
    except PlatformError as error:
        return await _shown(request, house, tenant_id, error=error.message, status=error.status)
    if said != tenant.name:
        wrong = "Nothing was done: that is not the name of this tenant."
        return await _shown(request, house, tenant_id, error=wrong, status=422)
    await house.tenants.changed()
    return _done(request, TENANTS, f"The tenant {tenant.name} is removed.")


async def _change(
    request: Request, house: House, tenant_id: int, changes: Mapping[str, object], user: Admin
) -> None:
    async with house.database.transaction() as session:
        await change_tenant(session, await find_tenant(session, tenant_id), changes, actor_of(request, user))
    await house.tenants.changed()


async def _shown(
    request: Request,
    house: House,
    tenant_id: int,
    form: Filled[ChangeForm] | None = None,
    *,
    error: str = "",
    status: int = 200,
) -> Response:
    async with house.database.session() as session:
        tenant = await find_tenant(session, tenant_id)
        tokens = await Tokens(session).of_tenant(tenant.name, MOST_TOKENS + 1)
        spent = await spending(session, "tenant", [tenant.name])
        used = await table(session, Asked(by="model", tenant=tenant.name))
    gauges = spent.gauges(house.limiter, tenant.name, tenant)
    more = len(tokens) > MOST_TOKENS
    page = TenantPage(tenant, gauges, tokens[:MOST_TOKENS], more, used, form or Filled(), error)
    return render(request, page, status)


def _done(request: Request, path: str, message: str) -> Response:
    response = RedirectResponse(path, 303)
    flash(request, response, message)
    return response
