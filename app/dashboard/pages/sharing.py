"""Who may call a model or a pipeline: a card on its page, and the form behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Path, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.guard import Admin, pages
from app.dependencies import House, actor_of
from core.access.roles import Role
from core.access.sessions import Principal
from core.control.tenant_changes import share
from core.database.repositories.tenants import Tenants
from core.database.tables import Model, Pipeline
from core.errors import BadRequest

router = pages()
WHO: Final = ("all", "some", "none")
SharedName = Annotated[str, Path(max_length=255)]


@dataclass(frozen=True, slots=True)
class Sharing:
    """With which tenants something is shared. `chosen` is None for all."""

    name: str
    chosen: Sequence[str] | None
    tenants: Sequence[str]
    """All that there are; empty for those who may not change it."""
    can_change: bool

    @property
    def who(self) -> str:
        """One of WHO."""
        return "all" if self.chosen is None else "some" if self.chosen else "none"

    @property
    def choices(self) -> Sequence[str]:
        """Those that can be ticked; one that was removed elsewhere is still ticked, so that it is seen."""
        return sorted({*self.tenants, *(self.chosen or ())})


async def load_sharing(session: AsyncSession, row: Model | Pipeline, user: Principal) -> Sharing:
    """What the card shows."""
    may = user.role.allows(Role.ADMIN)
    tenants = [tenant.name for tenant in await Tenants(session).all()] if may else []
    return Sharing(row.name, row.tenants, tenants, may)


@router.post("/sharing/{name}")
async def change(request: Request, name: SharedName, user: Admin, house: House) -> Response:
    """Share it with all tenants, with some, or with none; in force at once."""
    form = await request.form()
    who = form.get("who")
    if who not in WHO:
        raise BadRequest("Choose with whom it is shared.")
    chosen = [value for value in form.getlist("tenants") if isinstance(value, str)]
    if who == "some" and not chosen:
        raise BadRequest("Tick at least one tenant, or share it with none.")
    tenants = {"all": None, "some": chosen, "none": []}[str(who)]
    async with house.database.transaction() as session:
        row = await share(session, name, tenants, actor_of(request, user))
        is_model = isinstance(row, Model)
    await house.tenants.changed()
    back = f"/dashboard/models/{row.name}/settings" if is_model else f"/dashboard/pipelines/{row.name}"
    response = RedirectResponse(back, 303)
    told = {"all": "all tenants.", "none": "no tenant: nobody can call it by a token."}
    others = f"{', '.join(sorted(chosen))}; for others it does not exist."
    flash(request, response, f"{row.name} is shared with {told.get(str(who), others)}")
    return response
