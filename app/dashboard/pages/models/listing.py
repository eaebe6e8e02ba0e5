"""The list of models: what there is, and how each is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from fastapi import Query, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from app.dashboard.guard import Viewer, pages
from app.dashboard.page import MODELS, Page, Section
from app.dashboard.rendering import fragment, render
from app.dashboard.traffic import Share, shares_of
from app.dependencies import Cursor, House, Reading
from app.state import Platform
from app.tallies import traffic_of
from core.access.roles import Role
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.database.tables import Deployment, DeploymentStatus, Model, Version

router = pages()
NEVER: Final = "not deployed"
_STATES: Final[Mapping[str, tuple[str, ...]]] = {
    "serving": ("serving",),
    "loading": ("pending", "loading", "warming", "draining"),
    "idle": ("idle",),
    "failed": ("failed",),
    "stopped": ("stopped",),
    NEVER: (),
}
_WORST: Final = ("failed", "pending", "loading", "warming", "draining", "serving", "idle", "stopped")
_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One model."""

    name: str
    task: str
    description: str
    state: str
    reason: str
    shares: tuple[Share, ...]
    newest: int | None
    newest_status: str
    engine: str
    rate: float | None
    default_for: str
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Filters:
    """What was asked for."""

    q: str = ""
    task: str = ""
    state: str = ""
    tag: str = ""
    cursor: str = ""

    @property
    def query(self) -> dict[str, str]:
        """Those that are set, as an address has them."""
        names = ("q", "task", "state", "tag", "cursor")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, slots=True)
class ModelsPage(Page):
    """The whole page."""

    template: ClassVar[str] = "pages/models/page.html"
    section: ClassVar[Section] = MODELS
    rows: Sequence[Row]
    filters: Filters
    next_cursor: str | None
    tasks: Sequence[str]
    tags: Sequence[str]
    can_change: bool

    @property
    def states(self) -> tuple[str, ...]:
        """The choices of the filter."""
        return tuple(_STATES)


@router.get("/models")
async def models(
    request: Request,
    user: Viewer,
    house: House,
    session: Reading,
    q: Annotated[str, Query(max_length=100)] = "",
    task: Annotated[str, Query(max_length=64)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    tag: Annotated[str, Query(max_length=32)] = "",
    cursor: Cursor = None,
) -> Response:
    """The list; by itself for htmx."""
    known = state if state in _STATES else ""
    filters = Filters(_printable(q), _printable(task), known, _printable(tag), cursor or "")
    found, next_cursor = await Models(session).page(
        _ROWS, cursor or None, search=filters.q, task=filters.task, tag=filters.tag, states=_STATES.get(known)
    )
    rows = await _rows(session, house, found)
    tasks, tags = await Models(session).tasks(), await Models(session).tags()
    page = ModelsPage(rows, filters, next_cursor, tasks, tags, user.role.allows(Role.OPERATOR))
    if "hx-request" in request.headers:
        return fragment(request, "pages/models/list.html", page)
    return render(request, page)


async def _rows(session: AsyncSession, house: Platform, models: Sequence[Model]) -> list[Row]:
    ids = [model.id for model in models]
    desired = {row.model_id: row for row in await Deployments(session).desired_of(ids)}
    newest = await Versions(session).newest_of(ids)
    tags = await Models(session).tags_of(ids)
    observed: dict[int, list[DeploymentStatus]] = {}
    for status in await Deployments(session).observed_of(ids):
        observed.setdefault(status.model_id, []).append(status)
    traffic, now = traffic_of(house, await house.reconciler.totals()), time.time()
    rates = {name: one.rate(now) for name, one in traffic.items()}
    defaults = {name: modality for modality, name in house.defaults.targets.items()}
    return [
        _row(
            model,
            desired.get(model.id),
            observed.get(model.id, []),
            newest.get(model.id),
            rates.get(model.name),
            defaults.get(model.name, ""),
            tags.get(model.id, ()),
        )
        for model in models
    ]


def _row(
    model: Model,
    desired: Deployment | None,
    observed: Sequence[DeploymentStatus],
    newest: Version | None,
    rate: float | None,
    default_for: str,
    tags: Sequence[str],
) -> Row:
    state, reason = state_of(desired, observed)
    running = desired is not None and desired.running
    return Row(
        model.name,
        model.task,
        model.description,
        state,
        reason,
        shares_of(desired.spec["traffic"]) if desired is not None and running else (),
        newest.version if newest is not None else None,
        newest.status if newest is not None else "",
        str(desired.spec.get("engine", "auto")) if desired is not None and running else "",
        (rate or 0.0) if running else None,
        default_for,
        tags,
    )


def state_of(desired: Deployment | None, observed: Sequence[DeploymentStatus]) -> tuple[str, str]:
    """The state of a model and its reason; of several nodes the one that needs looking at most."""
    if desired is None:
        return NEVER, ""
    if not observed:
        return "pending", ""
    worst = min(observed, key=lambda one: _WORST.index(one.state) if one.state in _WORST else len(_WORST))
    if worst.state != "failed" and any(one.generation < desired.generation for one in observed):
        return "pending", "What was asked for last is being applied."
    return worst.state, worst.reason


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()
