"""Searching for the best way to run a version: begin, watch, cancel, apply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.dependencies import House, Operator, Reading, Viewer, actor_of
from app.internal.models import ModelName
from app.state import Platform
from core.control.artifact_choice import why_stale
from core.control.deploying import find_version
from core.control.following import follow, unfollow
from core.control.optimising import begin
from core.control.searches import cancel, latest
from core.database.repositories.optimisations import UNDER_WAY, Optimisations
from core.database.tables import Optimisation
from core.engines.registry import engine_class
from schemas.base import ErrorBody
from schemas.optimisations import (
    OptimisationAccepted,
    OptimisationAnswer,
    OptimisePost,
    RecommendationFollowed,
    RecommendationPut,
)

router = APIRouter(prefix="/models/{name}/versions/{number}", tags=["optimisation"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="The version's number.")]
LOOK_EVERY_S: Final = 0.5
KEEP_ALIVE_S: Final = 15.0
_MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorBody}}
_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}, "description": "`event: progress` with the search so far."},
    **_MISSING,
}


@router.post(
    "/optimise", status_code=202, summary="Search for the best engine", responses={**_MISSING, 409: _MISSING[404]}
)
async def optimise(
    request: Request, name: ModelName, number: Number, body: OptimisePost, operator: Operator, house: House
) -> OptimisationAccepted:
    """Measure engines, precisions and settings in processes of their own; `GET …/trials` shows how far it is."""
    for engine in body.engines or ():
        engine_class(engine)
    async with house.database.transaction() as session:
        version = await find_version(session, name, number)
        optimisation_id = await begin(session, version, name, body.model_dump(), actor_of(request, operator))
    house.optimisations.wake()
    return OptimisationAccepted(id=optimisation_id, status="queued")


@router.get("/trials", summary="The newest search and its trials", responses=_MISSING)
async def trials(name: ModelName, number: Number, _: Viewer, session: Reading) -> OptimisationAnswer:
    """How far it is, what each trial measured, and what is recommended and why."""
    return optimisation_answer(await latest(session, name, number))


@router.get("/trials/events", summary="Follow the newest search", responses=_EVENTS, response_model=None)
async def events(name: ModelName, number: Number, _: Viewer, house: House) -> StreamingResponse:
    """Server-sent events: `progress` after every change, and `end` once it has ended."""
    async with house.database.session() as session:
        row = await latest(session, name, number)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_follow(house, row), media_type="text/event-stream", headers=headers)


@router.delete("/optimise", status_code=204, summary="Cancel the search", responses=_MISSING)
async def cancel_search(
    request: Request, name: ModelName, number: Number, operator: Operator, house: House
) -> Response:
    """End the newest search, if it has not ended; what was measured stays to be seen."""
    async with house.database.transaction() as session:
        await cancel(session, name, number, actor_of(request, operator))
    house.optimisations.wake()
    return Response(status_code=204)


@router.put("/recommendation", summary="Apply a recommendation", responses={**_MISSING, 409: _MISSING[404]})
async def put_recommendation(
    request: Request, name: ModelName, number: Number, body: RecommendationPut, operator: Operator, house: House
) -> RecommendationFollowed:
    """Let deployments with `engine: auto` follow it: one that has the version in service at once, others later."""
    async with house.database.transaction() as session:
        actor = actor_of(request, operator)
        search, generation = await follow(session, name, number, body.search, actor)
    house.reconciler.wake()
    return RecommendationFollowed(search=search, generation=generation)


@router.delete("/recommendation", summary="Go back to the uploaded form", responses=_MISSING)
async def delete_recommendation(
    request: Request, name: ModelName, number: Number, operator: Operator, house: House
) -> RecommendationFollowed:
    """Follow none of the version's recommendations: it runs as uploaded until one is applied again."""
    async with house.database.transaction() as session:
        generation = await unfollow(session, name, number, actor_of(request, operator))
    house.reconciler.wake()
    return RecommendationFollowed(search=None, generation=generation)


async def _follow(house: Platform, row: Optimisation) -> AsyncIterator[bytes]:
    said, silent_s = b"", 0.0
    while True:
        answer = orjson.dumps(optimisation_answer(row).model_dump(mode="json"))
        ended = row.status not in UNDER_WAY
        if answer != said:
            said, silent_s = answer, 0.0
            yield b"event: progress\ndata: " + answer + b"\n\n"
        elif silent_s >= KEEP_ALIVE_S:
            silent_s = 0.0
            yield b": still at it\n\n"
        if ended or house.leaving:
            yield b"event: end\ndata: {}\n\n"
            return
        await asyncio.sleep(LOOK_EVERY_S)
        silent_s += LOOK_EVERY_S
        async with house.database.session() as session:
            found = await Optimisations(session).get(row.id)
        if found is None:  # the version was deleted
            return
        row = found


def optimisation_answer(row: Optimisation) -> OptimisationAnswer:
    """A search by its row."""
    answer = OptimisationAnswer.model_validate(row)
    if row.recommendation is not None:
        answer.stale = why_stale(row)
    return answer
