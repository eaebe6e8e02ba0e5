"""Models and versions: upload, look, check again, remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.dependencies import Cursor, House, Limit, Operator, Reading, UnitOfWork, Viewer, actor_of
from app.internal.upload_form import Form, receive_form
from app.state import Platform
from core.control.deploying import find_model
from core.control.uploads import Told
from core.database.repositories.deployments import Deployments
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.models import Models
from core.database.repositories.samples import Samples
from core.database.repositories.versions import Versions
from core.database.tables import DerivedArtifact, Model, Version, utc_now
from core.errors import BadRequest, Conflict, ModelNotFound
from core.store.names import check_model_name
from schemas.base import ErrorBody, Page
from schemas.models import DerivedAnswer, ModelAnswer, ModelDetailAnswer, ModelPatch, UploadAnswer, VersionAnswer

_FILE = "An .onnx or .pt2 file, TorchScript, or a zip."

router = APIRouter(prefix="/models", tags=["models"])

ModelName = Annotated[str, Path(max_length=255, description="The model's name.")]
VersionNumber = Annotated[int, Path(ge=1, le=1_000_000_000, description="The version's number.")]
_FIELDS = frozenset({"name", "task", "description", "manifest"})
_UPLOAD_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": _FILE},
                        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$", "example": "cats"},
                        "task": {"type": "string", "example": "image-classification"},
                        "description": {"type": "string"},
                        "manifest": {"type": "string", "description": "The text of a model.yaml."},
                    },
                }
            }
        },
    }
}
_VERSION_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": _FILE},
                        "task": {"type": "string"},
                        "manifest": {"type": "string", "description": "The text of a model.yaml."},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=202,
    summary="Upload a model",
    openapi_extra=_UPLOAD_DOC,
    responses={409: {"model": ErrorBody}, 413: {"model": ErrorBody}, 422: {"model": ErrorBody}},
)
async def add_model(request: Request, operator: Operator, house: House) -> UploadAnswer:
    """Add a model with its first version. It is checked in the background: follow the version's `report`."""
    form = await receive_form(request, house.store, _FIELDS)
    name = form.fields.get("name", "").strip()
    try:
        if not name:
            raise BadRequest("The form needs the field `name`.")
        check_model_name(name)
    except BaseException:
        await _discard(house, form)
        raise
    assert form.received is not None
    model, version = await house.uploads.add_model(form.received, name, _told(form), actor_of(request, operator))
    return await _uploaded(house, model, version)


@router.post(
    "/{name}/versions",
    status_code=202,
    summary="Upload the next version",
    openapi_extra=_VERSION_DOC,
    responses={404: {"model": ErrorBody}, 413: {"model": ErrorBody}, 422: {"model": ErrorBody}},
)
async def add_version(request: Request, name: ModelName, operator: Operator, house: House) -> UploadAnswer:
    """Add a version to a model. What serves now is not touched."""
    await house.uploads.check_existing(name)
    form = await receive_form(request, house.store, _FIELDS - {"name", "description"})
    assert form.received is not None
    model, version = await house.uploads.add_version(form.received, name, _told(form), actor_of(request, operator))
    return await _uploaded(house, model, version)


@router.get("", summary="List models")
async def list_models(
    _: Viewer,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Annotated[str | None, Query(max_length=100)] = None,
) -> Page[ModelAnswer]:
    """Models in the order of their names."""
    models, next_cursor = await Models(session).page(limit, cursor, search=search)
    states = {row.model_id: row.state for row in await Deployments(session).all_observed()}
    return Page(items=[_model(model, states.get(model.id)) for model in models], next_cursor=next_cursor)


@router.get("/{name}", summary="One model")
async def get_model(name: ModelName, _: Viewer, house: House, session: Reading) -> ModelDetailAnswer:
    """A model with all its versions."""
    model = await find_model(session, name)
    versions = await Versions(session).list(model.id)
    derived = await DerivedArtifacts(session).list([version.id for version in versions])
    answer = _model(model, await _state(session, model))
    return ModelDetailAnswer(
        **answer.model_dump(), versions=[version_answer(version, house, derived) for version in versions]
    )


@router.patch("/{name}", summary="Change a model's description")
async def change_model(
    request: Request, name: ModelName, body: ModelPatch, operator: Operator, session: UnitOfWork
) -> ModelAnswer:
    """Change what is said about a model; its name stays."""
    model = await find_model(session, name)
    if body.description is not None:
        model.description = body.description
        await Models(session).save(model)
        await session.refresh(model)
        await actor_of(request, operator).note(session, "model.update", name, {"description": body.description})
    return _model(model, await _state(session, model))


@router.delete("/{name}", status_code=204, summary="Remove a model")
async def remove_model(request: Request, name: ModelName, operator: Operator, house: House) -> Response:
    """Remove a model with its versions and files. Refused with 409 while it is deployed."""
    async with house.database.transaction() as session:
        model = await find_model(session, name)
        shas = {version.sha256 for version in await Versions(session).list(model.id)}
        shas |= {derived.sha256 for derived in await DerivedArtifacts(session).of_model(model.id)}
        samples = {sample.sha256 for sample in await Samples(session).list(model.id)}
        await Models(session).delete(model)
        await actor_of(request, operator).note(session, "model.delete", name)
    house.reconciler.wake()
    await house.uploads.forget(shas)
    await house.samples.forget(samples)
    return Response(status_code=204)


@router.get("/{name}/versions/{number}", summary="One version")
async def get_version(
    name: ModelName, number: VersionNumber, _: Viewer, house: House, session: Reading
) -> VersionAnswer:
    """A version with its signature and its validation report, which grows while it is being checked."""
    version = await _version(session, name, number)
    return version_answer(version, house, await DerivedArtifacts(session).list([version.id]))


@router.post("/{name}/versions/{number}/validate", status_code=202, summary="Check a version again")
async def validate_version(
    request: Request, name: ModelName, number: VersionNumber, operator: Operator, house: House
) -> VersionAnswer:
    """Run all checks again. A version that serves is not taken down whatever they find."""
    async with house.database.transaction() as session:
        version = await _version(session, name, number)
        if not await Versions(session).claim(version.id, utc_now() - timedelta(seconds=1)):
            raise Conflict(f"Version {number} of {name} is being validated already.")
        await actor_of(request, operator).note(session, "version.validate", f"{name}/{number}")
        await session.refresh(version)
    house.validations.wake()
    return version_answer(version, house)


def version_answer(version: Version, house: Platform, derived: Sequence[DerivedArtifact] = ()) -> VersionAnswer:
    """A version's row, with the checks done so far: the newest where it is being validated here.

    Of `derived`, those made from this version are listed with it.
    """
    answer = VersionAnswer.model_validate(version)
    answer.derived = [DerivedAnswer.model_validate(row) for row in derived if row.version_id == version.id]
    under_way = house.validations.running.get(version.id)
    if version.status == "validating" and under_way is not None:
        checks: list[Mapping[str, Any]] = list(under_way)
        answer = VersionAnswer.model_validate({**answer.model_dump(), "report": checks, "signature": None})
    return answer


def _told(form: Form) -> Told:
    fields = form.fields
    return Told(form.filename, fields.get("task"), fields.get("description"), fields.get("manifest"))


async def _discard(house: Platform, form: Form) -> None:
    if form.received is not None:
        await house.store.discard(form.received)


async def _uploaded(house: Platform, model: Model, version: Version) -> UploadAnswer:
    house.validations.wake()
    async with house.database.session() as session:
        state = await _state(session, model)
    return UploadAnswer(model=_model(model, state), version=VersionAnswer.model_validate(version))


async def _version(session: AsyncSession, name: str, number: int) -> Version:
    model = await find_model(session, name)
    version = await Versions(session).get(model.id, number)
    if version is None:
        raise ModelNotFound(f"The model {name} has no version {number}.")
    return version


async def _state(session: AsyncSession, model: Model) -> str | None:
    observed = await Deployments(session).observed(model.id)
    return observed[0].state if observed else None


def _model(model: Model, state: str | None) -> ModelAnswer:
    latest = model.next_version - 1
    return ModelAnswer.model_validate(
        {
            **{field: getattr(model, field) for field in ("name", "task", "description", "created_by")},
            "created_at": model.created_at,
            "updated_at": model.updated_at,
            "latest_version": latest or None,
            "state": state,
        }
    )
