"""Converted forms of a version: look, make anew, remove."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response

from app.dependencies import House, Operator, Viewer, actor_of
from app.internal.models import ModelName, VersionNumber
from schemas.base import ErrorBody, Page
from schemas.models import DerivedAnswer

router = APIRouter(prefix="/models/{name}/versions/{number}/derived", tags=["optimisation"])

ArtifactId = Annotated[int, Path(ge=1, le=2**31 - 1, description="The converted form's id.")]
_MISSING: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorBody}}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {**_MISSING, 409: {"model": ErrorBody}}


@router.get("", summary="List a version's converted forms", responses=_MISSING)
async def list_derived(name: ModelName, number: VersionNumber, _: Viewer, house: House) -> Page[DerivedAnswer]:
    """All there are, in the order they were made; their number is bounded."""
    rows = await house.derived.list(name, number)
    return Page(items=[DerivedAnswer.model_validate(row) for row in rows], next_cursor=None)


@router.get("/{artifact_id}", summary="One converted form", responses=_MISSING)
async def get_derived(
    name: ModelName, number: VersionNumber, artifact_id: ArtifactId, _: Viewer, house: House
) -> DerivedAnswer:
    """How it was made, and what of."""
    return DerivedAnswer.model_validate(await house.derived.get(name, number, artifact_id))


@router.post(
    "/{artifact_id}/rebuild", summary="Make a converted form anew", responses={**_REFUSED, 422: _MISSING[404]}
)
async def rebuild(
    request: Request,
    name: ModelName,
    number: VersionNumber,
    artifact_id: ArtifactId,
    operator: Operator,
    house: House,
) -> DerivedAnswer:
    """By its recipe, as after a library was updated; answered once that is done, which may take minutes.

    Refused with 409 for one that a deployment runs, and while a search is under way.
    """
    made = await house.derived.rebuild(name, number, artifact_id, actor_of(request, operator))
    return DerivedAnswer.model_validate(made)


@router.delete("/{artifact_id}", status_code=204, summary="Remove a converted form", responses=_REFUSED)
async def remove(
    request: Request,
    name: ModelName,
    number: VersionNumber,
    artifact_id: ArtifactId,
    operator: Operator,
    house: House,
) -> Response:
    """With its files. Refused with 409 for one that a deployment runs."""
    await house.derived.remove(name, number, artifact_id, actor_of(request, operator))
    return Response(status_code=204)
