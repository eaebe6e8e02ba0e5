"""What tenants, tokens and models used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.dependencies import Admin, House, Reading, Viewer
from core.control.usage_reports import export, range_of, report
from schemas.usage import By, Step, UsageAnswer

router = APIRouter(prefix="/usage", tags=["usage"])

From = Annotated[datetime | None, Query(alias="from", description="Left out: an hour, a day or 30 days ago.")]
To = Annotated[datetime | None, Query(description="Left out: now.")]
TenantName = Annotated[str | None, Query(max_length=64)]
TokenId = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
ModelName = Annotated[str | None, Query(max_length=63)]


@router.get("", summary="What was used")
async def get_usage(
    _: Viewer,
    session: Reading,
    since: From = None,
    to: To = None,
    step: Step = "hour",
    by: By | None = None,
    tenant: TenantName = None,
    token: TokenId = None,
    model: ModelName = None,
    points: Annotated[bool, Query(description="Also the sums of each step.")] = False,
    limit: Annotated[int, Query(ge=1, le=500, description="Those with the most requests.")] = 20,
) -> UsageAnswer:
    """Sums over a range of time, in all and by tenant, token or model, and series for charts."""
    wanted = range_of(step, _aware(since), _aware(to), tenant=tenant, token_id=token, model=model)
    return UsageAnswer.model_validate(await report(session, step, wanted, by, limit=limit, points=points))


@router.get(
    "/export",
    summary="What was used, as CSV",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}}},
)
async def export_usage(
    _: Admin,
    house: House,
    since: From = None,
    to: To = None,
    step: Step = "hour",
    tenant: TenantName = None,
    token: TokenId = None,
    model: ModelName = None,
) -> StreamingResponse:
    """Every row of a range of time, by tenant, token and model, in the order of time."""
    wanted = range_of(step, _aware(since), _aware(to), tenant=tenant, token_id=token, model=model)

    async def lines() -> AsyncIterator[bytes]:
        async with house.database.session() as session:
            async for line in export(session, wanted):
                yield line

    name = 'attachment; filename="usage.csv"'
    return StreamingResponse(lines(), media_type="text/csv", headers={"Content-Disposition": name})


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
