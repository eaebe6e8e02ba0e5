"""Rules about addresses: which may use which API, and whether a given one would pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from fastapi import Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Page, Section
from app.dashboard.pages.access.tabs import TABS
from app.dashboard.rendering import render
from app.dependencies import House, actor_of, client_address
from core.control.rule_changes import add_rule, remove_rule, would_pass
from core.database.repositories.access_rules import AccessRules
from core.database.tables import AccessRule
from core.errors import PlatformError
from schemas.access_rules import Action, Scope

router = pages()
_LIST = "/dashboard/access/addresses"
RuleId = Annotated[int, Path(ge=1, le=2**31 - 1)]
SCOPES = (("external", "inference API"), ("internal", "dashboard and internal API"))
ACTIONS = (("allow", "allow"), ("deny", "deny"))


class RuleForm(BaseModel):
    """A new rule."""

    cidr: str = Field(max_length=64)
    action: Action = "allow"
    scope: Scope = "external"
    note: str = Field("", max_length=200)
    force: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Whether an address would pass."""

    address: str
    scope: str
    allowed: bool | None = None
    rule_id: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class AddressesPage(Page):
    """The rules, the form for one more, and the box that asks."""

    template: ClassVar[str] = "pages/access/addresses.html"
    section: ClassVar[Section] = ACCESS
    rules: Sequence[AccessRule]
    check: Check
    asking: str
    form: Filled[RuleForm] = field(default_factory=Filled)
    scopes: tuple[tuple[str, str], ...] = SCOPES
    actions: tuple[tuple[str, str], ...] = ACTIONS
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Addresses"


@router.get("/access/addresses")
async def addresses(
    request: Request,
    _: Admin,
    house: House,
    address: Annotated[str, Query(max_length=64)] = "",
    scope: Scope = "external",
) -> Response:
    """The rules; with `address`, whether it would pass."""
    return await _shown(request, house, Filled(), address.strip(), scope)


@router.post("/access/addresses")
async def add(request: Request, user: Admin, house: House) -> Response:
    """Add a rule; one that would lock out whoever asks wants to be forced."""
    form = fill(RuleForm, await request.form())
    said = form.value
    if said is None:
        return await _shown(request, house, form, status=422)
    asking = client_address(request)
    try:
        async with house.database.transaction() as session:
            await add_rule(
                session,
                said.cidr,
                said.action,
                said.scope,
                said.note,
                actor_of(request, user),
                asking=asking,
                force=said.force,
            )
    except PlatformError as error:
        field = "cidr" if error.status == 422 else ""
        return await _shown(request, house, form.refused(error, field), status=error.status)
    await house.ip_rules.changed()
    return _done(request, f"The rule for {said.cidr} is in force.")


@router.post("/access/addresses/{rule_id}/remove")
async def remove(request: Request, rule_id: RuleId, user: Admin, house: House) -> Response:
    """Remove a rule; not one without which whoever asks would be locked out."""
    asking = client_address(request)
    async with house.database.transaction() as session:
        rule = await remove_rule(session, rule_id, actor_of(request, user), asking=asking, force=False)
    await house.ip_rules.changed()
    return _done(request, f"The rule for {rule.cidr} is gone.")


async def _shown(
    request: Request,
    house: House,
    form: Filled[RuleForm],
    address: str = "",
    scope: Scope = "external",
    status: int = 200,
) -> Response:
    check = Check(address, scope)
    async with house.database.session() as session:
        rules = await AccessRules(session).all()
        if address:
            try:
                verdict = await would_pass(session, address, scope)
                check = Check(address, scope, verdict.allowed, verdict.rule_id)
            except PlatformError as error:
                check = Check(address, scope, error=error.message)
    return render(request, AddressesPage(rules, check, client_address(request), form), status)


def _done(request: Request, message: str) -> Response:
    response = RedirectResponse(_LIST, 303)
    flash(request, response, message)
    return response
