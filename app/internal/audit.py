"""The audit log; administrators only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from app.dependencies import Admin, Cursor, Limit, Reading
from core.database.repositories.audit import Audit
from schemas.base import Page
from schemas.system import AuditAnswer

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


def _aware(moment: datetime | None) -> datetime | None:
    return moment.astimezone() if moment is not None else None
