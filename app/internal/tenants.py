"""Tenants, and who may call what; administrators only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from app.dependencies import Admin, Cursor, House, Limit, Reading, Viewer, actor_of
from core.control.tenant_changes import (
    change_tenant,
    create_tenant,
    delete_tenant,
    find_tenant,
    share,
    sharing_of,
)
from core.database.repositories.tenants import Tenants
from schemas.base import ErrorBody, Page
from schemas.tenants import SharingAnswer, SharingPut, TenantAnswer, TenantCreate, TenantPatch

router = APIRouter(tags=["tenants"], responses={404: {"model": ErrorBody}})

TenantId = Annotated[int, Path(ge=1, le=2**31 - 1)]
SharedName = Annotated[str, Path(max_length=255, description="A model or a pipeline.")]


@router.get("/tenants", summary="List tenants")
async def list_tenants(_: Admin, session: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[TenantAnswer]:
    """Tenants in the order of their names."""
    tenants, next_cursor = await Tenants(session).page(limit, cursor)
    return Page(items=[TenantAnswer.model_validate(one) for one in tenants], next_cursor=next_cursor)


@router.post("/tenants", status_code=201, summary="Make a tenant", responses={409: {"model": ErrorBody}})
async def add_tenant(request: Request, body: TenantCreate, admin: Admin, house: House) -> TenantAnswer:
    """Make a tenant, which owns no tokens yet. What is left out does not restrict."""
    async with house.database.transaction() as session:
        fields = body.model_dump(exclude={"name"})
        answer = TenantAnswer.model_validate(
            await create_tenant(session, body.name, fields, actor_of(request, admin))
        )
    await house.tenants.changed()
    return answer


@router.get("/tenants/{tenant_id}", summary="One tenant")
async def get_tenant(tenant_id: TenantId, _: Admin, session: Reading) -> TenantAnswer:
    """A tenant."""
    return TenantAnswer.model_validate(await find_tenant(session, tenant_id))


@router.patch("/tenants/{tenant_id}", summary="Change a tenant")
async def patch_tenant(
    request: Request, tenant_id: TenantId, body: TenantPatch, admin: Admin, house: House
) -> TenantAnswer:
    """Change what is sent, at once."""
    async with house.database.transaction() as session:
        tenant = await find_tenant(session, tenant_id)
        changes = body.model_dump(exclude_unset=True)
        answer = TenantAnswer.model_validate(
            await change_tenant(session, tenant, changes, actor_of(request, admin))
        )
    await house.tenants.changed()
    return answer


@router.delete("/tenants/{tenant_id}", summary="Remove a tenant", responses={409: {"model": ErrorBody}})
async def remove_tenant(request: Request, tenant_id: TenantId, admin: Admin, house: House) -> TenantAnswer:
    """Remove a tenant that owns no tokens; what it used stays counted."""
    async with house.database.transaction() as session:
        tenant = await find_tenant(session, tenant_id)
        answer = TenantAnswer.model_validate(tenant)
        await delete_tenant(session, tenant, actor_of(request, admin))
    await house.tenants.changed()
    return answer


@router.get("/sharing/{name}", summary="Who may call a model or pipeline?")
async def get_sharing(name: SharedName, _: Viewer, session: Reading) -> SharingAnswer:
    """The tenants that see it; null is all of them."""
    return SharingAnswer.model_validate(await sharing_of(session, name))


@router.put("/sharing/{name}", summary="Share a model or pipeline")
async def put_sharing(
    request: Request, name: SharedName, body: SharingPut, admin: Admin, house: House
) -> SharingAnswer:
    """Let these tenants see and call it, at once, and no others; for the others it does not exist."""
    async with house.database.transaction() as session:
        answer = SharingAnswer.model_validate(await share(session, name, body.tenants, actor_of(request, admin)))
    await house.tenants.changed()
    return answer
