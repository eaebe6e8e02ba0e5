"""The audit log: who did what to what, when, from where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

import orjson
from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Page, Section
from app.dashboard.pages.access.tabs import TABS
from app.dashboard.rendering import render
from app.dependencies import Cursor, House, Reading
from core.control.audit_export import Format, export
from core.database.repositories.audit import Audit
from core.database.tables import AuditEntry, utc_now
from schemas.system import ChainAnswer

router = pages()
_PAGE = 50
SPANS = {"": None, "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
Word = Annotated[str, Query(max_length=128)]


@dataclass(frozen=True, slots=True)
class AuditPage(Page):
    """Entries, newest first, by filters."""

    template: ClassVar[str] = "pages/access/audit.html"
    section: ClassVar[Section] = ACCESS
    rows: Sequence[tuple[AuditEntry, str]]
    cursor: str | None
    query: Mapping[str, str]
    walk: ChainAnswer | None = None
    """What a walk along the chain of hashes has found, where it was asked for."""
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Audit log"


@router.get("/access/audit")
async def audit(
    request: Request,
    _: Admin,
    session: Reading,
    actor: Word = "",
    action: Word = "",
    subject: Word = "",
    span: Literal["", "hour", "day", "week"] = "",
    cursor: Cursor = None,
    verify: bool = False,
) -> Response:
    """Entries by who, what (or how it begins), to what, since when; with `verify`, whether the log is whole."""
    words = {"actor": actor.strip(), "action": action.strip(), "subject": subject.strip()}
    wanted = {name: word for name, word in words.items() if word and word.isprintable()}
    length = SPANS[span]
    since = None if length is None else utc_now() - length
    entries, next_cursor = await Audit(session).page(
        _PAGE,
        cursor,
        actor=wanted.get("actor"),
        action=wanted.get("action"),
        subject=wanted.get("subject"),
        since=since,
    )
    query = {**wanted, **({"span": span} if span else {}), **({"cursor": cursor} if cursor else {})}
    rows = [(entry, _told(entry.detail)) for entry in entries]
    walk = ChainAnswer.model_validate(await Audit(session).verify()) if verify else None
    return render(request, AuditPage(rows, next_cursor, query, walk))


@router.get("/access/audit/export")
async def export_log(_: Admin, house: House, form: Annotated[Format, Query(alias="format")] = "csv") -> Response:
    """The whole log, oldest first."""

    async def lines() -> AsyncIterator[bytes]:
        async with house.database.session() as session:
            async for line in export(Audit(session), form):
                yield line

    kind = "text/csv" if form == "csv" else "application/x-ndjson"
    name = f'attachment; filename="audit.{form}"'
    return StreamingResponse(lines(), media_type=kind, headers={"Content-Disposition": name})


def _told(detail: Mapping[str, object]) -> str:
    return orjson.dumps(detail).decode() if detail else ""
