"""Pipelines: check, add, look, deploy, remove."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.dependencies import Cursor, House, Limit, Operator, Reading, Viewer, actor_of
from app.state import Platform
from core.control import pipelines as changes
from core.database.repositories.pipelines import Pipelines
from core.database.tables import Pipeline, PipelineDeployment, PipelineVersion
from core.errors import BadRequest, NotFound
from core.pipelines.definition import MISSING, parsed
from core.pipelines.picture import draw
from core.pipelines.plan import Plan
from core.pipelines.problems import WrongPipeline
from schemas.base import ErrorBody, Page
from schemas.pipelines import (
    CheckedAnswer,
    NodeModelAnswer,
    PipelineAccepted,
    PipelineAddedAnswer,
    PipelineAnswer,
    PipelineDeploymentAnswer,
    PipelineDeploymentPut,
    PipelineDesired,
    PipelineDetailAnswer,
    PipelineObserved,
    PipelineVersionAnswer,
    PlanAnswer,
    PortAnswer,
    ProblemAnswer,
)

router = APIRouter(prefix="/pipelines", tags=["pipelines"])

PipelineName = Annotated[str, Path(max_length=255, description="The pipeline's name.")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="The version's number.")]
_YAML: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string", "description": "The text of a graph.yaml."}}
        },
    }
}
_MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorBody}}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {409: {"model": ErrorBody}, 422: {"model": ErrorBody}}
_SVG: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/svg+xml": {}}, "description": "A drawing of the graph."},
    **_MISSING,
}


@router.post("", status_code=201, summary="Add a pipeline", openapi_extra=_YAML, responses=_REFUSED)
async def add_pipeline(
    request: Request,
    name: Annotated[str, Query(max_length=255, description="What applications will call it by.")],
    operator: Operator,
    house: House,
) -> PipelineAddedAnswer:
    """Check the definition in the body, and add it as version 1. Nothing is served before it is deployed."""
    text = await _text(request)
    actor = actor_of(request, operator)
    async with house.database.transaction() as session:
        row, version, plan = await changes.add_pipeline(session, name, text, actor)
        return _added(house, row, version, plan)


@router.post("/validate", summary="Check a definition", openapi_extra=_YAML)
async def validate(request: Request, _: Viewer, session: Reading) -> CheckedAnswer:
    """All that is wrong with it, each with its line; nothing is kept."""
    try:
        plan = await changes.plan_for(session, await _text(request))
    except WrongPipeline as error:
        return CheckedAnswer(ok=False, problems=[ProblemAnswer.model_validate(one) for one in error.problems])
    return CheckedAnswer(ok=True, problems=[], plan=_plan(plan))


@router.get("", summary="List pipelines")
async def list_pipelines(
    _: Viewer, house: House, session: Reading, limit: Limit = 50, cursor: Cursor = None
) -> Page[PipelineAnswer]:
    """Pipelines in the order of their names."""
    rows, next_cursor = await Pipelines(session).page(limit, cursor)
    return Page(items=[_pipeline(house, row) for row in rows], next_cursor=next_cursor)


@router.get("/{name}", summary="One pipeline", responses=_MISSING)
async def get_pipeline(name: PipelineName, _: Viewer, house: House, session: Reading) -> PipelineDetailAnswer:
    """A pipeline with all its versions."""
    row = await changes.find_pipeline(session, name)
    versions = [PipelineVersionAnswer.model_validate(one) for one in await Pipelines(session).versions(row.id)]
    return PipelineDetailAnswer(**_pipeline(house, row).model_dump(), versions=versions)


@router.delete("/{name}", status_code=204, summary="Remove a pipeline", responses={**_MISSING, **_REFUSED})
async def remove_pipeline(request: Request, name: PipelineName, operator: Operator, house: House) -> Response:
    """Remove a pipeline with its versions. Refused with 409 while it is deployed."""
    async with house.database.transaction() as session:
        await changes.remove(session, name, actor_of(request, operator))
    await follow(house)
    return Response(status_code=204)


@router.post(
    "/{name}/versions",
    status_code=201,
    summary="Add the next version",
    openapi_extra=_YAML,
    responses={**_MISSING, **_REFUSED},
)
async def add_version(
    request: Request, name: PipelineName, operator: Operator, house: House
) -> PipelineAddedAnswer:
    """Check the definition in the body, and add it. What serves now is not touched."""
    text = await _text(request)
    actor = actor_of(request, operator)
    async with house.database.transaction() as session:
        row, version, plan = await changes.add_version(session, name, text, actor)
        return _added(house, row, version, plan)


@router.get("/{name}/versions/{number}", summary="One version", responses=_MISSING)
async def get_version(name: PipelineName, number: Number, _: Viewer, session: Reading) -> PipelineVersionAnswer:
    """A version with its definition."""
    row = await changes.find_pipeline(session, name)
    return PipelineVersionAnswer.model_validate(await changes.find_version(session, row, number))


@router.get("/{name}/graph", summary="A picture", responses=_SVG, response_class=Response)
async def graph(
    name: PipelineName,
    _: Viewer,
    session: Reading,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The newest if left out.")] = None,
) -> Response:
    """Nodes and edges of a version, as SVG."""
    return await graph_answer(session, name, version)


@router.put("/{name}/deployment", status_code=202, summary="Deploy", responses={**_MISSING, **_REFUSED})
async def put_deployment(
    request: Request, name: PipelineName, body: PipelineDeploymentPut, operator: Operator, house: House
) -> PipelineAccepted:
    """Let a version answer from now on; requests under way end with the version that they began with."""
    spec = body.model_dump(exclude={"version"})
    async with house.database.transaction() as session:
        row = await changes.deploy(session, name, body.version, spec, actor_of(request, operator))
        generation = row.generation
    await follow(house)
    return PipelineAccepted(generation=generation, state=_state(house, name))


@router.get("/{name}/deployment", summary="Desired and observed state", responses=_MISSING)
async def get_deployment(
    name: PipelineName, _: Viewer, house: House, session: Reading
) -> PipelineDeploymentAnswer:
    """What was asked for and what is; `waiting` names the models that are not in service."""
    row = await changes.find_pipeline(session, name)
    desired = await Pipelines(session).deployment(row.id)
    if desired is None:
        raise NotFound(f"The pipeline {name} has never been deployed.")
    return PipelineDeploymentAnswer(desired=_desired(desired), observed=observed_of(house, name, desired))


@router.delete("/{name}/deployment", status_code=202, summary="Undeploy", responses=_MISSING)
async def delete_deployment(
    request: Request, name: PipelineName, operator: Operator, house: House
) -> PipelineAccepted:
    """Take the pipeline out of service; requests under way are answered first."""
    async with house.database.transaction() as session:
        generation = (await changes.undeploy(session, name, actor_of(request, operator))).generation
    await follow(house)
    return PipelineAccepted(generation=generation, state=_state(house, name))


async def graph_answer(session: AsyncSession, name: str, version: int | None) -> Response:
    """The drawing of a version, the newest where none is named. Raises NotFound."""
    row = await changes.find_pipeline(session, name)
    found = await changes.find_version(session, row, version)
    picture = draw(parsed(found.definition), f"{name} version {found.version}")
    headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(picture, media_type="image/svg+xml", headers=headers)


async def _text(request: Request) -> str:
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("The definition must be YAML in UTF-8.") from error


async def follow(house: Platform) -> None:
    """Serve what is desired now, here at once and elsewhere soon."""
    await house.pipelines.refresh()
    house.reconciler.wake()  # who tells other workers that something has changed


def _state(house: Platform, name: str) -> Any:
    return house.pipelines.state(name)[0]


def _pipeline(house: Platform, row: Pipeline) -> PipelineAnswer:
    return PipelineAnswer(
        name=row.name,
        description=row.description,
        latest_version=row.next_version - 1,
        state=_state(house, row.name),
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _added(house: Platform, row: Pipeline, version: PipelineVersion, plan: Plan) -> PipelineAddedAnswer:
    return PipelineAddedAnswer(
        pipeline=_pipeline(house, row), version=PipelineVersionAnswer.model_validate(version), plan=_plan(plan)
    )


def _plan(plan: Plan) -> PlanAnswer:
    definition = plan.definition
    return PlanAnswer(
        description=definition.description,
        modality=plan.modality,
        inputs=[
            PortAnswer(name=one.name, type=str(one.type), required=one.default is MISSING)
            for one in definition.inputs.values()
        ],
        outputs=[PortAnswer(name=name, type=str(type_)) for name, (_, type_) in plan.outputs.items()],
        models=[
            NodeModelAnswer(model=model, version=version)
            for model, version in sorted(plan.models(), key=lambda one: (one[0], one[1] or 0))
        ],
    )


def _desired(row: PipelineDeployment) -> PipelineDesired:
    told = {name: getattr(row, name) for name in ("generation", "running", "version", "updated_by", "updated_at")}
    return PipelineDesired(**told, **row.spec)


def observed_of(house: Platform, name: str, desired: PipelineDeployment) -> PipelineObserved:
    """What is, beside what is desired."""
    state, reason = house.pipelines.state(name)
    generation = house.pipelines.generation(name) if desired.running else desired.generation
    if desired.running and generation != desired.generation:
        state, reason = "pending", ""
    return PipelineObserved.model_validate({"generation": generation, "state": state, "reason": reason})
