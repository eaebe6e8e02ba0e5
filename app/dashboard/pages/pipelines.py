"""Pipelines: the list, each with its graph and versions, and the editor that says what is wrong at the line."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from fastapi import Path, Query, Request
from pydantic import BaseModel, Field
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.page import PIPELINES, Crumb, Page, Section
from app.dashboard.pages.sharing import Sharing, load_sharing
from app.dashboard.rendering import fragment, render
from app.dependencies import House, Reading, actor_of
from app.internal.pipelines import follow, graph_answer, observed_of
from app.state import Platform
from app.tallies import traffic_of
from core.access.roles import Role
from core.access.sessions import Principal
from core.control import pipelines as changes
from core.database.repositories.pipelines import Pipelines
from core.database.tables import Pipeline, PipelineDeployment, PipelineVersion
from core.errors import BadRequest, PlatformError
from core.metrics import ModelTraffic
from core.pipelines.picture import draw
from core.pipelines.plan import Plan
from core.pipelines.problems import Problem, WrongPipeline
from core.pipelines.target import Pipeline as PipelineTarget
from core.pipelines.timings import NodeSummary
from schemas.pipelines import PipelineDeploymentPut, PipelineObserved

router = pages()

Name = Annotated[str, Path(max_length=255)]
Number = Annotated[int | None, Query(ge=1, le=2**31 - 1)]
Cursor = Annotated[str | None, Query(max_length=256)]
ROOT: Final = "/dashboard/pipelines"
_A_PAGE: Final = 50
_STARTER: Final = """\
description: What it answers, in a sentence.
inputs:
  photo: image
nodes:
  detect: {model: detector, input: photo}
outputs:
  detections: detect.detections
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A pipeline of the list."""

    pipeline: Pipeline
    state: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class ListPage(Page):
    """All pipelines, in the order of their names."""

    template: ClassVar[str] = "pages/pipelines/page.html"
    section: ClassVar[Section] = PIPELINES
    rows: Sequence[Row]
    cursor: str | None
    asked: str | None
    may_change: bool


@dataclass(frozen=True, slots=True)
class PipelinePage(Page):
    """One pipeline."""

    template: ClassVar[str] = "pages/pipelines/pipeline.html"
    section: ClassVar[Section] = PIPELINES
    pipeline: Pipeline
    versions: Sequence[PipelineVersion]
    shown: PipelineVersion
    desired: PipelineDeployment | None
    observed: PipelineObserved | None
    requests: int
    may_change: bool
    sharing: Sharing
    nodes: Sequence[NodeSummary] = ()
    form: Filled[PipelineDeploymentPut] = field(default_factory=Filled)
    problem: str = ""

    @property
    def title(self) -> str:
        """See Page."""
        return self.pipeline.name

    @property
    def run_ms(self) -> float:
        """How long a run takes on average, by its nodes."""
        return max((node.start_ms + node.mean_ms for node in self.nodes), default=0.0) or 1.0

    @property
    def serves(self) -> int | None:
        """The version that answers, or should."""
        return self.desired.version if self.desired is not None and self.desired.running else None


class DefinitionForm(BaseModel):
    """A definition, and for a new pipeline its name."""

    name: str = Field("", max_length=255)
    definition: str = Field(max_length=1 << 20)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: problems with the text of their lines, or the plan and its picture."""

    problems: Sequence[tuple[Problem, str]] = ()
    plan: Plan | None = None
    picture: str = ""
    """As a `data:` address."""


@dataclass(frozen=True, slots=True)
class EditorPage(Page):
    """The editor, for a new pipeline where `name` is empty, or for the next version of one."""

    template: ClassVar[str] = "pages/pipelines/editor.html"
    section: ClassVar[Section] = PIPELINES
    name: str
    text: str
    form: Filled[DefinitionForm] = field(default_factory=Filled)
    checked: Checked | None = None

    @property
    def title(self) -> str:
        """See Page."""
        return "Edit" if self.name else "New pipeline"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        way = (Crumb(PIPELINES.title, PIPELINES.path),)
        return (*way, Crumb(self.name, f"{ROOT}/{self.name}")) if self.name else way

    @property
    def action(self) -> str:
        """Where the form goes."""
        return f"{ROOT}/{self.name}/edit" if self.name else f"{ROOT}/+new"


@router.get("/pipelines")
async def list_pipelines(
    request: Request, user: Viewer, house: House, session: Reading, cursor: Cursor = None
) -> Response:
    """A table of them."""
    found, following = await Pipelines(session).page(_A_PAGE, cursor)
    traffic = traffic_of(house, await house.reconciler.totals())
    rows = [Row(one, *house.pipelines.state(one.name), _requests(traffic, one.name)) for one in found]
    return render(request, ListPage(rows, following, cursor, user.role.allows(Role.OPERATOR)))


# Names have no plus, so that what stands beside pipelines is never the name of one.
@router.get("/pipelines/+new")
async def new_pipeline(request: Request, _: Operator) -> Response:
    """The editor with something to begin from."""
    return render(request, EditorPage("", _STARTER))


@router.post("/pipelines/+new")
async def add_pipeline(request: Request, operator: Operator, house: House) -> Response:
    """Check it, or add it as version 1."""
    form = await request.form()
    return await _save(request, operator, house, "", form)


@router.post("/pipelines/+check")
async def check(request: Request, _: Viewer, session: Reading) -> Response:
    """What is wrong with the text in the editor, as the part below it."""
    text = (await request.form()).get("definition")
    checked = await _check(session, text if isinstance(text, str) else "")
    return fragment(request, "pages/pipelines/checked.html", EditorPage("", "", checked=checked))


@router.get("/pipelines/{name}")
async def pipeline(
    request: Request, name: Name, user: Viewer, house: House, session: Reading, version: Number = None
) -> Response:
    """A pipeline with the graph of `version`, or of what serves, or of the newest."""
    return render(request, await _pipeline_page(house, session, user, name, version))


@router.get("/pipelines/{name}/state")
async def state(request: Request, name: Name, user: Viewer, house: House, session: Reading) -> Response:
    """How it is now: the part of the page that is asked for again and again."""
    page = await _pipeline_page(house, session, user, name, None)
    return fragment(request, "pages/pipelines/state.html", page)


@router.get("/pipelines/{name}/graph")
async def graph(name: Name, _: Viewer, session: Reading, version: Number = None) -> Response:
    """The picture of a version."""
    return await graph_answer(session, name, version)


@router.get("/pipelines/{name}/edit")
async def edit(request: Request, name: Name, _: Operator, session: Reading, version: Number = None) -> Response:
    """The editor, beginning from a version."""
    row = await changes.find_pipeline(session, name)
    found = await changes.find_version(session, row, version)
    return render(request, EditorPage(name, found.definition))


@router.post("/pipelines/{name}/edit")
async def add_version(request: Request, name: Name, operator: Operator, house: House) -> Response:
    """Check it, or add it as the next version."""
    return await _save(request, operator, house, name, await request.form())


@router.post("/pipelines/{name}/deploy")
async def deploy(request: Request, name: Name, operator: Operator, house: House) -> Response:
    """Let a version answer."""
    form = fill(PipelineDeploymentPut, await request.form())
    try:
        if form.value is None:
            return await _again(request, operator, house, name, 422, form=form)
        spec = form.value.model_dump(exclude={"version"})
        async with house.database.transaction() as session:
            await changes.deploy(session, name, form.value.version, spec, actor_of(request, operator))
    except PlatformError as error:
        return await _again(request, operator, house, name, error.status, problem=error.message)
    await follow(house)
    return _done(request, f"{ROOT}/{name}", f"Version {form.value.version} of {name} answers from now on.")


@router.post("/pipelines/{name}/undeploy")
async def undeploy(request: Request, name: Name, operator: Operator, house: House) -> Response:
    """Take it out of service."""
    try:
        await _confirmed(request, name)
        async with house.database.transaction() as session:
            await changes.undeploy(session, name, actor_of(request, operator))
    except PlatformError as error:
        return await _again(request, operator, house, name, error.status, problem=error.message)
    await follow(house)
    return _done(request, f"{ROOT}/{name}", f"{name} is out of service.")


@router.post("/pipelines/{name}/remove")
async def remove(request: Request, name: Name, operator: Operator, house: House) -> Response:
    """Remove it with its versions."""
    try:
        await _confirmed(request, name)
        async with house.database.transaction() as session:
            await changes.remove(session, name, actor_of(request, operator))
    except PlatformError as error:
        return await _again(request, operator, house, name, error.status, problem=error.message)
    await follow(house)
    return _done(request, ROOT, f"The pipeline {name} is removed.")


async def _save(request: Request, operator: Principal, house: Platform, name: str, sent: FormData) -> Response:
    form = fill(DefinitionForm, sent)
    # As it was typed: `fill` takes away the white space around it, and the lines would not be those of the editor.
    typed = sent.get("definition")
    text = typed.replace("\r\n", "\n") if isinstance(typed, str) else ""
    if sent.get("action") == "check" or form.value is None:
        async with house.database.session() as session:
            checked = await _check(session, text)
        return render(request, EditorPage(name, text, form, checked), 422 if checked.problems else 200)
    actor = actor_of(request, operator)
    try:
        async with house.database.transaction() as session:
            if name:
                row, version, _ = await changes.add_version(session, name, text, actor)
            else:
                row, version, _ = await changes.add_pipeline(session, form.value.name, text, actor)
    except WrongPipeline as error:
        return render(request, EditorPage(name, text, form, _wrong(error, text)), error.status)
    except PlatformError as error:
        return render(request, EditorPage(name, text, form.refused(error, "" if name else "name")), error.status)
    said = f"Version {version.version} of {row.name} is kept. It answers once it is deployed."
    return _done(request, f"{ROOT}/{row.name}?version={version.version}", said)


async def _check(session: Reading, text: str) -> Checked:
    try:
        plan = await changes.plan_for(session, text)
    except WrongPipeline as error:
        return _wrong(error, text)
    picture = base64.b64encode(draw(plan.definition, "As it is now").encode()).decode("ascii")
    return Checked(plan=plan, picture=f"data:image/svg+xml;base64,{picture}")


def _wrong(error: WrongPipeline, text: str) -> Checked:
    lines = text.split("\n")
    return Checked(
        [
            (one, lines[one.line - 1] if one.line is not None and one.line <= len(lines) else "")
            for one in error.problems
        ]
    )


async def _pipeline_page(
    house: Platform,
    session: Reading,
    user: Principal,
    name: str,
    number: int | None,
    *,
    form: Filled[PipelineDeploymentPut] | None = None,
    problem: str = "",
) -> PipelinePage:
    row = await changes.find_pipeline(session, name)
    desired = await Pipelines(session).deployment(row.id)
    if number is None and desired is not None and desired.running:
        number = desired.version
    return PipelinePage(
        pipeline=row,
        versions=await Pipelines(session).versions(row.id),
        shown=await changes.find_version(session, row, number),
        desired=desired,
        observed=observed_of(house, name, desired) if desired is not None else None,
        requests=_requests(traffic_of(house, await house.reconciler.totals()), name),
        may_change=user.role.allows(Role.OPERATOR),
        sharing=await load_sharing(session, row, user),
        nodes=_nodes(house, name),
        form=form or Filled(),
        problem=problem,
    )


async def _again(
    request: Request,
    user: Principal,
    house: Platform,
    name: str,
    status: int,
    *,
    form: Filled[PipelineDeploymentPut] | None = None,
    problem: str = "",
) -> Response:
    """The page once more, with what was wrong. Raises NotFound where there is no such pipeline."""
    async with house.database.session() as session:
        page = await _pipeline_page(house, session, user, name, None, form=form, problem=problem)
        return render(request, page, status)


async def _confirmed(request: Request, name: str) -> None:
    if (await request.form()).get("confirm") != name:
        raise BadRequest("The name that was typed is not the pipeline's, so nothing was done.")


def _done(request: Request, path: str, sentence: str) -> Response:
    response = RedirectResponse(path, 303)
    flash(request, response, sentence)
    return response


def _nodes(house: Platform, name: str) -> list[NodeSummary]:
    found = [one.node_times for one in house.catalogue.targets().get(name, ()) if isinstance(one, PipelineTarget)]
    return found[0].summaries() if found else []


def _requests(traffic: Mapping[str, ModelTraffic], name: str) -> int:
    return traffic[name].requests if name in traffic else 0
