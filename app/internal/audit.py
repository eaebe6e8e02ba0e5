"""The audit log; administrators only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.dependencies import Admin, Cursor, House, Limit, Reading
from core.control.audit_export import Format, export
from core.database.repositories.audit import Audit
from core.errors import BadRequest
from schemas.base import Page
from schemas.system import AuditAnswer, ChainAnswer

router = APIRouter(prefix="/audit", tags=["audit"])

Filter = Annotated[str | None, Query(max_length=128)]


@router.get("", summary="Who did what to what, when, from where")
async def list_audit(
    _: Admin,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    actor: Filter = None,
    action: Annotated[str | None, Query(max_length=64, description="A beginning, as `model.`")] = None,
    subject: Filter = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Page[AuditAnswer]:
    """Changes, newest first."""
    entries, next_cursor = await Audit(session).page(
        limit, cursor, actor=actor, action=action, subject=subject, since=_aware(since), until=_aware(until)
    )
    return Page(items=[AuditAnswer.model_validate(entry) for entry in entries], next_cursor=next_cursor)


_FILES: Final[dict[str, Any]] = {"content": {"application/x-ndjson": {}, "text/csv": {}}}


@router.get(
    "/export", summary="The whole log as a file", response_class=StreamingResponse, responses={200: _FILES}
)
async def export_audit(
    _: Admin, house: House, kind: Annotated[Format, Query(alias="format")] = "jsonl"
) -> StreamingResponse:
    """All changes, oldest first, as JSON lines or CSV, each with its place and hash in the chain."""

    async def lines() -> AsyncIterator[bytes]:
        async with house.database.session() as session:
            async for line in export(Audit(session), kind):
                yield line

    media_type = "text/csv" if kind == "csv" else "application/x-ndjson"
    name = f'attachment; filename="audit.{kind}"'
    return StreamingResponse(lines(), media_type=media_type, headers={"Content-Disposition": name})


@router.get("/verify", summary="Is the log whole?")
async def verify_audit(_: Admin, session: Reading) -> ChainAnswer:
    """Walk the chain of hashes from the first entry to the last."""
    return ChainAnswer.model_validate(await Audit(session).verify())


def _aware(moment: datetime | None) -> datetime | None:
    try:
        return moment.astimezone() if moment is not None else None
    except (OverflowError, ValueError):
        raise BadRequest("A time must lie in the years 1 to 9999, in UTC too.") from None
