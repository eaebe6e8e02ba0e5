"""Searching for the best way to run a version: begin, watch, compare, apply, undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from fastapi import Path, Query, Request
from pydantic import BaseModel, Field, field_validator
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.pages.access.tabs import lines
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, VersionNumber, load_head, model_path
from app.dashboard.rendering import fragment, render
from app.dashboard.scatter import HEIGHT, WIDTH, Axis, axes
from app.dependencies import House, Reading, actor_of
from app.internal.optimisations import optimisation_answer
from core.access.sessions import Principal
from core.control.deploying import find_version
from core.control.following import follow, unfollow
from core.control.optimising import begin
from core.control.searches import cancel
from core.database.repositories.optimisations import UNDER_WAY, Optimisations
from core.engines.registry import engine_names
from core.errors import PlatformError
from schemas.optimisations import OptimisationAnswer, OptimisePost, TrialAnswer

router = pages()
SearchId = Annotated[int, Path(ge=1, le=2**31 - 1)]
_COLOURED: Final = ("fp32", "bf16", "fp16", "int8")


class SearchForm(BaseModel):
    """What is asked of a search: the objective, what may be lost for it in percent, and how long."""

    objective: str = Field("latency", pattern="^(latency|throughput|memory)$")
    loss_percent: float = Field(1.0, ge=0, le=100)
    budget_s: float = Field(180, ge=5, le=86_400)
    engines: list[str] | None = None
    precisions: list[Literal["fp32", "bf16", "fp16", "int8"]] | None = None
    apply: bool = False

    @field_validator("engines", "precisions", mode="before")
    @classmethod
    def _several(cls, value: str | list[str] | None) -> list[str] | None:
        return lines(value)


@dataclass(frozen=True, slots=True)
class Dot:
    """A trial in the plot."""

    trial: TrialAnswer
    x: float
    y: float
    colour: str
    best: bool

    @property
    def hollow(self) -> bool:
        """Whether its answers were too far off to be used."""
        return self.trial.status == "rejected"


@dataclass(frozen=True, slots=True)
class Plot:
    """Latency across, throughput up: the best are at the top left."""

    across: Axis
    up: Axis
    dots: Sequence[Dot]
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def colours(self) -> list[str]:
        """Those that appear, for the legend."""
        return sorted({dot.colour for dot in self.dots})


@dataclass(frozen=True, slots=True)
class OptimiserPage(ModelPage):
    """The newest search of one version, and a form for the next."""

    template: ClassVar[str] = "pages/models/optimiser.html"
    tab: ClassVar[str] = "/optimiser"
    head: Head
    number: int | None
    search: OptimisationAnswer | None
    followed: bool
    form: Filled[SearchForm] = field(default_factory=Filled)
    precisions: tuple[str, ...] = _COLOURED

    @property
    def engines(self) -> list[str]:
        """Those that a search may be held to; the one for tests is none."""
        return [name for name in engine_names() if name != "fake"]

    @property
    def running(self) -> bool:
        """Whether the newest search goes on."""
        return self.search is not None and self.search.status in UNDER_WAY

    @property
    def best(self) -> TrialAnswer | None:
        """The trial that is recommended."""
        said = self.search.recommendation if self.search is not None else None
        trials = self.search.trials if self.search is not None else []
        return next((trial for trial in trials if said is not None and trial.number == said.trial), None)

    @property
    def plot(self) -> Plot | None:
        """All trials that measured something; none while there are fewer than two."""
        measured = [
            (trial, trial.figures)
            for trial in (self.search.trials if self.search is not None else [])
            if trial.figures is not None and trial.figures.p50_ms > 0 and trial.figures.throughput_per_s > 0
        ]
        if len(measured) < 2:
            return None
        across, up = axes([(figures.p50_ms, figures.throughput_per_s) for _, figures in measured])
        dots = [
            Dot(
                trial,
                across.at(figures.p50_ms),
                up.at(figures.throughput_per_s),
                trial.candidate.precision if trial.candidate.precision in _COLOURED else "other",
                trial == self.best,
            )
            for trial, figures in measured
        ]
        return Plot(across, up, sorted(dots, key=lambda dot: dot.best))


@router.get("/models/{name}/optimiser")
async def optimiser(
    request: Request,
    name: ModelName,
    user: Viewer,
    session: Reading,
    version: Annotated[int | None, Query(ge=1, le=1_000_000_000)] = None,
) -> Response:
    """The page; the search by itself for htmx, which asks each second while it goes on."""
    page = await _page(session, name, user, version)
    if "hx-request" in request.headers:
        return fragment(request, "pages/models/search.html", page)
    return render(request, page)


@router.post("/models/{name}/versions/{number}/optimise")
async def start(
    request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House
) -> Response:
    """Begin a search."""
    form = fill(SearchForm, await request.form())
    if form.value is not None:
        said = form.value
        wanted = OptimisePost.model_validate(
            {
                "objective": said.objective,
                "max_accuracy_loss": said.loss_percent / 100,
                "budget_s": said.budget_s,
                "engines": said.engines,
                "precisions": said.precisions,
                "apply": said.apply,
            }
        )
        try:
            async with house.database.transaction() as session:
                version = await find_version(session, name, number)
                await begin(session, version, name, wanted.model_dump(), actor_of(request, user))
            house.optimisations.wake()
            return _back(name, number)
        except PlatformError as error:
            form = form.refused(error)
    async with house.database.session() as session:
        return render(request, await _page(session, name, user, number, form), 422)


@router.post("/models/{name}/versions/{number}/cancel")
async def stop(request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House) -> Response:
    """End the newest search."""
    async with house.database.transaction() as session:
        await cancel(session, name, number, actor_of(request, user))
    house.optimisations.wake()
    return _back(name, number)


@router.post("/models/{name}/versions/{number}/apply/{search}")
async def apply(
    request: Request, name: ModelName, number: VersionNumber, search: SearchId, user: Operator, house: House
) -> Response:
    """Follow what a search recommends."""
    async with house.database.transaction() as session:
        _, generation = await follow(session, name, number, search, actor_of(request, user))
    house.reconciler.wake()
    response = _back(name, number)
    now = "It is being loaded in that form." if generation else "A deployment with the engine auto will follow it."
    flash(request, response, f"Version {number} follows search {search}. {now}")
    return response


@router.post("/models/{name}/versions/{number}/undo")
async def undo(request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House) -> Response:
    """Run the version as it was uploaded."""
    async with house.database.transaction() as session:
        await unfollow(session, name, number, actor_of(request, user))
    house.reconciler.wake()
    response = _back(name, number)
    flash(request, response, f"Version {number} runs as it was uploaded.")
    return response


def _back(name: str, number: int) -> Response:
    return RedirectResponse(f"{model_path(name)}/optimiser?version={number}", 303)


async def _page(
    session: AsyncSession,
    name: str,
    user: Principal,
    number: int | None,
    form: Filled[SearchForm] | None = None,
) -> OptimiserPage:
    head = await load_head(session, name, user)
    live = [share.version for share in head.shares if share.part is not None]
    there = {version.version: version for version in head.versions}
    chosen = next((one for one in (number, *live, *(one.version for one in head.valid)) if one in there), None)
    row = followed = None
    if chosen is not None:
        row = await Optimisations(session).latest(there[chosen].id)
        followed = await Optimisations(session).recommended(there[chosen].id)
    search = optimisation_answer(row) if row is not None else None
    return OptimiserPage(head, chosen, search, followed is not None, form or Filled())
