"""The first tab of a model: how it does now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from app.dashboard.guard import Viewer, pages
from app.dashboard.page import Crumb
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, load_head
from app.dashboard.rendering import fragment, render
from app.dependencies import House, Reading
from app.internal.deployments import observed_answer
from app.state import Platform
from app.tallies import traffic_of
from core.access.sessions import Principal
from core.metrics import ModelTraffic
from schemas.deployments import Observed

router = pages()


@dataclass(frozen=True, slots=True)
class Column:
    """One bar of the histogram of batch sizes; its height is from 0 to 1."""

    size: str
    count: int
    height: float


@dataclass(frozen=True, slots=True)
class LivePage(ModelPage):
    """Figures since the model was loaded, and of the last minute."""

    template: ClassVar[str] = "pages/models/live.html"
    head: Head
    observed: Observed | None
    traffic: ModelTraffic
    rate: float

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb("Models", "/dashboard/models"),)

    @property
    def mean_ms(self) -> float | None:
        """Of all answers since the server began."""
        return self.traffic.total_ms / self.traffic.requests if self.traffic.requests else None

    @property
    def error_rate(self) -> float | None:
        """The part of the requests that the server could not answer."""
        return self.traffic.errors / self.traffic.requests if self.traffic.requests else None

    @property
    def several(self) -> bool:
        """Whether there is anything to compare."""
        return len(self.head.versions) > 1

    @property
    def batches(self) -> list[Column]:
        """How many batches of each size were run."""
        sizes = self.observed.batch_sizes if self.observed is not None else {}
        top = max(sizes.values(), default=1)
        return [Column(size, count, count / top) for size, count in sizes.items()]

    @property
    def why(self) -> str:
        """Why batches are smaller than asked for, as a sentence."""
        why = (self.observed.why_not_batching if self.observed is not None else None) or ""
        return f"{why[0].upper()}{why[1:].removesuffix('.')}." if why else ""

    @property
    def mean_batch(self) -> float | None:
        """Items in a batch on average."""
        batches = sum(column.count for column in self.batches)
        return sum(int(column.size) * column.count for column in self.batches) / batches if batches else None


@router.get("/models/{name}")
async def live(request: Request, name: ModelName, user: Viewer, house: House, session: Reading) -> Response:
    """The page; its figures by themselves for htmx."""
    page = await _page(session, house, name, user)
    if "hx-request" in request.headers:
        return fragment(request, "pages/models/figures.html", page)
    return render(request, page)


@router.get("/models/{name}/state")
async def state(request: Request, name: ModelName, user: Viewer, session: Reading) -> Response:
    """The state above the tabs, asked for each second while it changes."""
    return fragment(request, "pages/models/state.html", ModelPage(await load_head(session, name, user)))


async def _page(session: AsyncSession, house: Platform, name: str, user: Principal) -> LivePage:
    head = await load_head(session, name, user)
    observed = None
    if head.desired is not None and head.running:
        observed = await observed_answer(house, name, head.desired, head.status(house.node))
    traffic = traffic_of(house, await house.reconciler.totals(name)).get(name) or ModelTraffic()
    return LivePage(head, observed, traffic, traffic.rate(time.time()))
