"""What was used: by tenant, token or model, over an hour, a day or a month; as a chart, a table and CSV."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import orjson
from fastapi import Depends, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response, StreamingResponse

from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Page, Section
from app.dashboard.pages.access.tabs import TABS
from app.dashboard.rendering import render
from app.dependencies import House, Reading
from core.control.usage_reports import Group, Report, Step, export, range_of, report
from core.database.repositories.usage import By, Range

router = pages()
USAGE: Final = "/dashboard/access/usage"
MOST_ROWS: Final = 50
MOST_LINES: Final = 8
Span = Literal["hour", "day", "month"]
STEP_OF: Final[Mapping[Span, Step]] = {"hour": "minute", "day": "hour", "month": "day"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose usage, over what, in groups of what."""

    by: By = "tenant"
    span: Span = "month"
    tenant: str = ""
    token: int | None = None
    model: str = ""

    @property
    def query(self) -> dict[str, str]:
        """As an address has it, what is not set left out."""
        said = {"by": self.by, "span": self.span, "tenant": self.tenant, "token": self.token, "model": self.model}
        return {name: str(value) for name, value in said.items() if value not in ("", None)}

    def range(self) -> Range:
        """Which rows."""
        return range_of(
            STEP_OF[self.span],
            None,
            None,
            tenant=self.tenant or None,
            token_id=self.token,
            model=self.model or None,
        )


async def _asked(
    by: By = "tenant",
    span: Span = "month",
    tenant: Annotated[str, Query(max_length=64)] = "",
    token: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    model: Annotated[str, Query(max_length=63)] = "",
) -> Asked:
    return Asked(by, span, _printable(tenant), token, _printable(model))


Wanted = Annotated[Asked, Depends(_asked)]


@dataclass(frozen=True, slots=True)
class UsagePage(Page):
    """The table; its chart asks for its figures itself."""

    template: ClassVar[str] = "pages/access/usage.html"
    section: ClassVar[Section] = ACCESS
    asked: Asked
    report: Report
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Usage"

    @property
    def filters(self) -> dict[str, str]:
        """What narrows it down, to be carried on by the form."""
        return {name: value for name, value in self.asked.query.items() if name in ("tenant", "token", "model")}

    def narrower(self, row: Group) -> dict[str, str]:
        """The same of one row alone: of a tenant its tokens, of a token its models, of a model its tokens."""
        by = {"tenant": "token", "token": "model", "model": "token"}[self.asked.by]
        return {**self.asked.query, self.asked.by: row.key, "by": by}


@router.get("/access/usage")
async def usage(request: Request, _: Admin, session: Reading, asked: Wanted) -> Response:
    """The page."""
    return render(request, UsagePage(asked, await table(session, asked)))


async def table(session: AsyncSession, asked: Asked) -> Report:
    """The sums of those who used most."""
    return await report(session, STEP_OF[asked.span], asked.range(), asked.by, limit=MOST_ROWS, points=False)


@router.get("/access/usage/series")
async def series(_: Admin, session: Reading, asked: Wanted) -> Response:
    """`{times, series: [{name, values}]}`: requests in each minute, hour or day, of those who asked most."""
    wanted = asked.range()
    found = await report(session, STEP_OF[asked.span], wanted, asked.by, limit=MOST_LINES, points=True)
    body = {"times": _times(wanted), "series": [_line(group, wanted) for group in found.items]}
    return Response(orjson.dumps(body), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/access/usage/csv")
async def usage_csv(_: Admin, house: House, asked: Wanted) -> StreamingResponse:
    """Every row of the time, by tenant, token and model."""
    wanted = asked.range()

    async def lines() -> AsyncIterator[bytes]:
        async with house.database.session() as session:
            async for line in export(session, wanted):
                yield line

    name = f'attachment; filename="usage-{time.strftime("%Y-%m-%d", time.gmtime())}.csv"'
    return StreamingResponse(lines(), media_type="text/csv", headers={"Content-Disposition": name})


def _times(wanted: Range) -> list[int]:
    return list(range(wanted.since, wanted.until, wanted.step_s))


def _line(group: Group, wanted: Range) -> dict[str, object]:
    counted = {int(point.at.timestamp()): point.requests for point in group.points}
    return {"name": group.name or "no model", "values": [counted.get(at, 0) for at in _times(wanted)]}


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()
