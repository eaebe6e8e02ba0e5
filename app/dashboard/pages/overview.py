"""The first page: whether all is well, what is asked of which model, and what needs somebody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final
from zlib import crc32

from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from app.dashboard.attention import (
    EXPIRES_SOON,
    MOST,
    Matter,
    disk,
    expiring,
    failed,
    failing,
    matters,
    not_answering,
)
from app.dashboard.compression import Compressed
from app.dashboard.figures import Figures, Tile, figures_of, tiles_of
from app.dashboard.first_steps import FirstStep, first_steps, look_around
from app.dashboard.guard import FiguresRoute, Viewer, pages
from app.dashboard.live import Live, sse_headers
from app.dashboard.made_once import MadeOnce
from app.dashboard.page import OVERVIEW, Page, Section
from app.dashboard.rendering import HEADERS, fragment, fragment_for_all, render
from app.dashboard.traffic import in_words
from app.dashboard.words import size
from app.dependencies import House
from app.middleware import check_address
from app.observation import read
from app.readings import Step, Tally, step_between, total
from app.state import Platform
from core.access.roles import Role
from core.access.sessions import Principal
from core.control.machine import machine_stats
from core.control.memory import node_bytes
from core.database.repositories.deployments import Deployments, Wanted
from core.database.repositories.tokens import Tokens
from core.database.tables import utc_now
from core.errors import Forbidden, Unavailable
from core.settings import budget_bytes

router = pages()
again = pages(FiguresRoute)
_LAST_MINUTE = 12
_SPARKS = 60
_ROWS = 50
"""Deployments on the page: those that need looking at, and then those asked most; the list of models has all."""
PARTS_S = 4.0
"""So old may be what many dashboards ask for again and again."""
_PAGES: MadeOnce[OverviewPage] = MadeOnce(most=8)
_PARTS: MadeOnce[Compressed] = MadeOnce(most=8)
_PARTS_TEMPLATE: Final = "pages/overview/parts.html"
_CALM = ("serving", "idle", "stopped")


@dataclass(frozen=True, slots=True)
class Row:
    """One deployment."""

    name: str
    task: str
    versions: str
    state: str
    reason: str
    rate: str
    p95: str
    queue: str
    batches: tuple[int, ...]
    memory: str
    engine: str


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine under it."""

    cores: tuple[float, ...]
    memory: tuple[tuple[str, int, str], ...]
    memory_bytes: int
    budget_bytes: int
    disk_used: int
    disk_free: int
    """For the server: some file systems keep a part for others."""
    gpus: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class OverviewPage(Page):
    """The whole page."""

    template: ClassVar[str] = "pages/overview/page.html"
    section: ClassVar[Section] = OVERVIEW
    tiles: Mapping[str, Tile]
    sparks: Mapping[str, tuple[float, ...]]
    matters: tuple[Matter, ...]
    rows: tuple[Row, ...]
    more: int
    """Deployments that are not shown."""
    machine: Machine
    first_steps: tuple[FirstStep, ...]


@router.get("/")
async def overview(request: Request, user: Viewer, house: House) -> Response:
    """The overview."""
    return render(request, await _page(house, user.role))


@again.get("/overview/parts")
async def parts(
    request: Request, user: Viewer, house: House, edition: Annotated[str, Query(max_length=8)] = ""
) -> Response:
    """What changes now and then: what needs attention, and the deployments.

    `edition` is what the asker has heard of by the live figures: what was made before that is too old.
    """
    page = await _lately(house, user.role, edition)
    if any(matter.roll_back for matter in page.matters):  # a form, which each session has for itself
        return fragment(request, _PARTS_TEMPLATE, page)

    async def make() -> Compressed:
        return fragment_for_all(request, _PARTS_TEMPLATE, page)

    made = await _PARTS.get((house.started_at, user.role), page, make)
    return made.response(request, "text/html", HEADERS)


async def _lately(house: Platform, role: Role, edition: str = "") -> OverviewPage:
    """The page, made once for all who ask in the same seconds and have heard of the same edition."""
    now = time.monotonic() // PARTS_S
    return await _PAGES.get((house.started_at, role, edition), now, lambda: _page(house, role))


async def _edition(house: Platform) -> str:
    """Another word as soon as something that needs attention or a deployment is another; figures do not count."""
    page = await _lately(house, Role.ADMIN)
    matters = [(matter.state, matter.subject) for matter in page.matters]
    # Of all deployments, and not of those on the page: which of many those are, requests decide.
    states = sorted((name, _at_rest(state)) for name, state in house.reconciler.states().items())
    versions = [(row.name, row.versions, row.reason, row.engine) for row in page.rows] if not page.more else []
    return f"{crc32(repr((matters, states, versions)).encode()):08x}"


def _at_rest(state: str) -> str:
    return "at rest" if state in _CALM else state


LIVE = Live(_edition)


@router.get("/overview/first-steps")
async def steps_to_go(request: Request, user: Viewer, house: House) -> Response:
    """The guide by itself, for as long as there is one."""
    return fragment(request, "pages/overview/first_steps.html", await _page(house, user.role))


@again.get("/live")
async def live(request: Request, user: Viewer, house: House) -> Response:
    """The figures as an event stream (WHATWG HTML, section 9.2), once a second, to whoever may still see them."""
    events = LIVE.events(house)
    first = await anext(events)

    async def stream() -> AsyncIterator[bytes]:
        async with aclosing(events):
            yield first
            async for event in events:
                if not await _may_watch(request, user, house):
                    return
                yield event

    return StreamingResponse(stream(), media_type="text/event-stream", headers=sse_headers())


async def _may_watch(request: Request, user: Principal, house: Platform) -> bool:
    try:
        check_address(request.scope)
        return await house.access.held.holds(user)
    except Forbidden:
        return False
    except Unavailable:  # serving goes on without the database, and so does watching
        return True


async def _page(house: House, role: Role) -> OverviewPage:
    reading = house.recorder.last or await read(house)
    steps = list(house.recorder.steps)
    last = _together(steps[-_LAST_MINUTE:]) or step_between(reading, reading)
    async with house.database.session() as session:
        wanted = await Deployments(session).running()
        shown = _first(wanted, house.reconciler.states(), last)
        reasons = await Deployments(session).reasons([row.name for row in shown])
        known = await look_around(session, house, wanted[0].name if wanted else "")
        soon = utc_now() + EXPIRES_SOON
        tokens = await Tokens(session).expiring_before(soon, 10) if role.allows(Role.ADMIN) else []
    figures = figures_of(house, last, reading, [row.name for row in shown])
    full = await asyncio.to_thread(disk, house.settings.data_dir)
    failures = await _failures(house, role.allows(Role.OPERATOR))
    found = [*failures, *not_answering(house.not_ready()), *failing(steps), *expiring(tokens, utc_now()), *full]
    rows = tuple(_row(row, figures, reasons.get(row.name, ""), reading.batches) for row in shown)
    machine = await asyncio.to_thread(machine_stats, house.settings.data_dir, house.started_at)
    return OverviewPage(
        tiles=tiles_of(last, reading.memory_total_bytes),
        sparks=_sparks(steps),
        matters=matters(found),
        rows=rows,
        more=len(wanted) - len(shown),
        machine=_machine(house, machine, reading.memory, tuple(figures.cores)),
        first_steps=first_steps(known, role),
    )


async def _failures(house: House, may_change: bool) -> list[Matter]:
    """The deployments that failed, each with what ran before; at most as many as are shown."""
    before: dict[str, list[int]] = {}
    async with house.database.session() as session:
        down = await Deployments(session).failed(MOST)
        for model_id, name, _ in down:
            earlier = await Deployments(session).previous(model_id)
            if earlier is not None:
                before[name] = [share["version"] for share in earlier.spec["traffic"]]
    return failed({name: reason for _, name, reason in down}, before, may_change)


def _first(wanted: Sequence[Wanted], states: Mapping[str, str], last: Step) -> Sequence[Wanted]:
    """Those that are shown, in the order in which they were made."""
    if len(wanted) <= _ROWS:
        return wanted

    def rank(row: Wanted) -> tuple[bool, int]:
        asked = last.models.get(row.name)
        return states.get(row.name, "pending") in _CALM, -asked.requests if asked is not None else 0

    chosen = {row.name for row in sorted(wanted, key=rank)[:_ROWS]}
    return [row for row in wanted if row.name in chosen]


def _row(row: Wanted, figures: Figures, reason: str, batches: Mapping[str, Mapping[int, int]]) -> Row:
    name = row.name
    one = figures.models.get(name)
    sizes = batches.get(name, {})
    return Row(
        name=name,
        task=row.task,
        versions=in_words(row.spec.get("traffic") or []),
        state=one.state if one else "pending",
        reason=reason,
        rate=one.rate if one else "0",
        p95=one.p95 if one else "–",
        queue=one.queue if one else "0",
        batches=_histogram(sizes),
        memory=one.memory if one else "–",
        engine=str(row.spec.get("engine") or "auto"),
    )


def _histogram(sizes: Mapping[int, int]) -> tuple[int, ...]:
    """Batches by size, 1, 2, 3-4, 5-8, … up to 65 and more."""
    counted = [0] * 8
    for items, number in sizes.items():
        counted[min(7, max(0, (items - 1).bit_length()))] += number
    return tuple(counted) if any(counted) else ()


def _machine(
    house: House, said: Mapping[str, object], memory: Mapping[str, int], cores: tuple[float, ...]
) -> Machine:
    budget = budget_bytes(house.settings.inference.memory_budget, node_bytes())
    parts = tuple(
        (name, taken, size(taken)) for name, taken in sorted(memory.items(), key=lambda one: -one[1])[:7]
    )
    disk_said, gpus = said["disk"], said["gpus"]
    assert isinstance(disk_said, dict)
    assert isinstance(gpus, list)
    whole = budget or node_bytes()
    return Machine(cores, parts, whole, budget, disk_said["used_bytes"], disk_said["free_bytes"], gpus)


def _together(steps: Sequence[Step]) -> Step | None:
    """One step out of several that follow each other; what is a level is the last one's."""
    if not steps:
        return None
    tallies: dict[str, list[Tally]] = {}
    for step in steps:
        for model, tally in step.models.items():
            tallies.setdefault(model, []).append(tally)
    models = {model: total(some) for model, some in tallies.items()}
    seconds = sum(step.seconds for step in steps)
    last = steps[-1]
    return Step(last.at, seconds, models, last.queue_depth, last.cpu_percent, last.memory_used_bytes)


def _sparks(steps: Sequence[Step]) -> dict[str, tuple[float, ...]]:
    said = [tiles_of(step, 1) for step in steps[-_SPARKS:]]
    keys = ("rate", "p50", "errors", "queue", "cpu", "memory")
    return {key: tuple(tiles[key].value for tiles in said) for key in keys}
