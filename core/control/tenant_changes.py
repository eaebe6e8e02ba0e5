"""Changes of tenants, and of who may call what. The HTTP side and the command line share them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor, before_of
from core.control.limit_fields import LIMIT_FIELDS, check_limits
from core.database.repositories.tenants import Tenants
from core.database.tables import DEFAULT_TENANT, Model, Pipeline, Tenant, utc_now
from core.errors import Conflict, ModelNotFound, NotFound, Unprocessable

FIELDS: Final = ("note", "disabled", *LIMIT_FIELDS)
MAX_SHARES: Final = 1000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


async def find_tenant(session: AsyncSession, tenant_id: int) -> Tenant:
    """The tenant with that id. Raises NotFound."""
    tenant = await Tenants(session).get(tenant_id)
    if tenant is None:
        raise NotFound("There is no such tenant.")
    return tenant


async def tenant_called(session: AsyncSession, name: str) -> Tenant:
    """The tenant of that name. Raises NotFound."""
    tenant = await Tenants(session).by_name(name)
    if tenant is None:
        raise NotFound(f"There is no tenant called {name[:64]!r}.")
    return tenant


async def need_tenant(session: AsyncSession, name: str) -> str:
    """The name of a tenant that stays until this transaction ends. Raises Unprocessable."""
    if await Tenants(session).by_name(name, hold=True) is None:
        raise Unprocessable(f"tenant: there is no tenant called {name[:64]!r}.")
    return name


async def create_tenant(session: AsyncSession, name: str, fields: Mapping[str, Any], actor: Actor) -> Tenant:
    """Add a tenant. Raises Unprocessable or Conflict."""
    if not _NAME.fullmatch(name):
        raise Unprocessable(
            "A tenant's name has 1 to 63 of the characters a-z 0-9 . _ - and begins with one of a-z 0-9."
        )
    checked = checked_fields(fields)
    tenant = Tenant(name=name, created_by=actor.name, **checked)
    await Tenants(session).add(tenant)
    told = {field: value for field, value in checked.items() if value not in (None, "", False)}
    await actor.note(session, "tenant.create", name, {"id": tenant.id, **told})
    return tenant


async def change_tenant(session: AsyncSession, tenant: Tenant, changes: Mapping[str, Any], actor: Actor) -> Tenant:
    """Change some fields. Raises Unprocessable."""
    checked = checked_fields(changes)
    before = before_of(tenant, checked)
    for field, value in checked.items():
        setattr(tenant, field, value)
    tenant.updated_at = utc_now()
    await Tenants(session).save()
    await actor.note(session, "tenant.update", tenant.name, {"id": tenant.id, **checked, "before": before})
    return tenant


async def delete_tenant(session: AsyncSession, tenant: Tenant, actor: Actor) -> Tenant:
    """Remove a tenant. Raises Conflict for the default one, and while it owns tokens."""
    tenants = Tenants(session)
    await tenants.by_name(tenant.name, hold=True)
    if tenant.name == DEFAULT_TENANT:
        raise Conflict("The default tenant stays: it owns the tokens that were given to nobody else.")
    if await tenants.owns_tokens(tenant.name):
        raise Conflict(f"The tenant {tenant.name} owns tokens; revoke them, or give them to another, first.")
    await tenants.delete(tenant)
    await actor.note(session, "tenant.delete", tenant.name, {"id": tenant.id, "before": before_of(tenant, FIELDS)})
    return tenant


async def sharing_of(session: AsyncSession, name: str) -> Model | Pipeline:
    """The model or pipeline of that name. Raises ModelNotFound."""
    found = await Tenants(session).shared(name)
    if found is None:
        raise ModelNotFound(f"There is no model or pipeline called {name[:64]!r}.")
    return found


async def share(session: AsyncSession, name: str, tenants: Sequence[str] | None, actor: Actor) -> Model | Pipeline:
    """Let these tenants see and call a model or pipeline, and no others; None lets all. Raises ModelNotFound
    or Unprocessable.
    """
    row = await sharing_of(session, name)
    wanted = None if tenants is None else sorted(set(tenants))
    if wanted is not None and len(wanted) > MAX_SHARES:
        raise Unprocessable(f"tenants: at most {MAX_SHARES} may be named.")
    for tenant in wanted or ():
        await need_tenant(session, tenant)
    before, row.tenants = row.tenants, wanted
    await Tenants(session).save()
    await actor.note(session, "model.share", name, {"tenants": wanted, "before": {"tenants": before}})
    return row


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as the row wants them. Raises Unprocessable, naming the field."""
    checked = {name: fields[name] for name in FIELDS if name in fields}
    for name in ("note", "disabled"):
        if name in checked and checked[name] is None:
            raise Unprocessable(f"{name} may not be null.")
    if len(checked.get("note", "")) > 200:
        raise Unprocessable("note: at most 200 characters.")
    check_limits(checked)
    return checked
