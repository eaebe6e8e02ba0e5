"""Models and versions: upload, look, check again, remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.dependencies import Cursor, House, Limit, Operator, Reading, UnitOfWork, Viewer, actor_of
from app.internal.upload_form import Form, form_doc, receive_form
from app.state import Platform
from core.control.deploying import find_model, find_version
from core.control.model_changes import change_model as apply_changes
from core.control.model_changes import check_again, remove_model
from core.control.uploads import Told
from core.control.version_changes import archive, remove_version, restore
from core.database.repositories.deployments import Deployments
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.database.tables import DerivedArtifact, Model, Version
from core.errors import BadRequest, Unprocessable
from core.store.names import check_model_name
from schemas.base import ErrorBody, Page
from schemas.models import (
    DefaultsAnswer,
    DerivedAnswer,
    ModelActivate,
    ModelAnswer,
    ModelDetailAnswer,
    ModelPatch,
    UploadAnswer,
    VersionAnswer,
)

_FILE = "An .onnx or .pt2 file, TorchScript, or a zip."

router = APIRouter(prefix="/models", tags=["models"])

ModelName = Annotated[str, Path(max_length=255, description="The model's name.")]
VersionNumber = Annotated[int, Path(ge=1, le=1_000_000_000, description="The version's number.")]
_FIELDS = frozenset({"name", "task", "description", "manifest"})
_REFUSED: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody}}
_TASK = {"type": "string", "example": "image-classification"}
_MANIFEST = {"type": "string", "description": "The text of a model.yaml."}
_VERSION_DOC = form_doc(_FILE, {"task": _TASK, "manifest": _MANIFEST})
_UPLOAD_DOC = form_doc(
    _FILE,
    {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$", "example": "cats"},
        "task": _TASK,
        "description": {"type": "string"},
        "manifest": _MANIFEST,
    },
    required=("name",),
)


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
    model, version = await house.uploads.add_model(form.file, name, _told(form), actor_of(request, operator))
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
    model, version = await house.uploads.add_version(form.file, name, _told(form), actor_of(request, operator))
    return await _uploaded(house, model, version)


@router.get("", summary="List models")
async def list_models(
    _: Viewer,
    house: House,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Annotated[str | None, Query(max_length=100)] = None,
    tag: Annotated[str | None, Query(max_length=32)] = None,
) -> Page[ModelAnswer]:
    """Models in the order of their names."""
    models, next_cursor = await Models(session).page(limit, cursor, search=search, tag=tag)
    states = {row.model_id: row.state for row in await Deployments(session).all_observed(house.node)}
    tags = await Models(session).tags_of([model.id for model in models])
    items = [_model(house, model, states.get(model.id), tags.get(model.id, ())) for model in models]
    return Page(items=items, next_cursor=next_cursor)


@router.post(
    "/activate",
    summary="Set the default of a modality",
    responses={404: {"model": ErrorBody}, 409: {"model": ErrorBody}},
)
async def activate_model(
    request: Request, body: ModelActivate, operator: Operator, house: House
) -> DefaultsAnswer:
    """Let a model in service answer what `/predict` gets of its modality, in every worker; or nobody."""
    actor = actor_of(request, operator)
    async with house.database.transaction() as session:
        if body.model is not None:
            await house.defaults.activate(session, body.model, body.modality, actor)
        elif body.modality is not None:
            await house.defaults.deactivate(session, body.modality, actor)
        else:
            raise Unprocessable("Say which model, or for which modality there shall be none.")
    await house.defaults.refresh()
    house.reconciler.wake()  # who tells other workers that something has changed
    return DefaultsAnswer.model_validate({"defaults": house.defaults.targets})


@router.get("/{name}", summary="One model")
async def get_model(name: ModelName, _: Viewer, house: House, session: Reading) -> ModelDetailAnswer:
    """A model with all its versions."""
    model = await find_model(session, name)
    versions = await Versions(session).list(model.id)
    derived = await DerivedArtifacts(session).list([version.id for version in versions])
    answer = await _answer(house, session, model)
    return ModelDetailAnswer(
        **answer.model_dump(), versions=[version_answer(version, house, derived) for version in versions]
    )


@router.patch("/{name}", summary="Change a model's description or tags")
async def change_model(
    request: Request, name: ModelName, body: ModelPatch, operator: Operator, house: House, session: UnitOfWork
) -> ModelAnswer:
    """Change what is said about a model; its name stays."""
    changes = body.model_dump(exclude_none=True)
    if changes:
        model = await apply_changes(session, name, changes, actor_of(request, operator))
    else:
        model = await find_model(session, name)
    return await _answer(house, session, model)


@router.delete("/{name}", status_code=204, summary="Remove a model")
async def delete_model(request: Request, name: ModelName, operator: Operator, house: House) -> Response:
    """Remove a model with its versions and files. Refused with 409 while it is deployed."""
    await remove_model(house.database, house.uploads, house.samples, name, actor_of(request, operator))
    house.reconciler.wake()
    return Response(status_code=204)


@router.get("/{name}/versions/{number}", summary="One version")
async def get_version(
    name: ModelName, number: VersionNumber, _: Viewer, house: House, session: Reading
) -> VersionAnswer:
    """A version with its signature and its validation report, which grows while it is being checked."""
    version = await find_version(session, name, number)
    return version_answer(version, house, await DerivedArtifacts(session).list([version.id]))


@router.post("/{name}/versions/{number}/validate", status_code=202, summary="Check a version again")
async def validate_version(
    request: Request, name: ModelName, number: VersionNumber, operator: Operator, house: House
) -> VersionAnswer:
    """Run all checks again. A version that serves is not taken down whatever they find."""
    async with house.database.transaction() as session:
        version = await check_again(session, name, number, actor_of(request, operator))
    house.validations.wake()
    return version_answer(version, house)


@router.post(
    "/{name}/versions/{number}/archive", summary="Put a version away", responses={409: {"model": ErrorBody}}
)
async def archive_version(
    request: Request, name: ModelName, number: VersionNumber, operator: Operator, house: House, session: UnitOfWork
) -> VersionAnswer:
    """It keeps its file and its number, but cannot be deployed, nor gone back to, until it is restored."""
    return version_answer(await archive(session, name, number, actor_of(request, operator)), house)


@router.post(
    "/{name}/versions/{number}/restore", summary="Take a version back", responses={409: {"model": ErrorBody}}
)
async def restore_version(
    request: Request, name: ModelName, number: VersionNumber, operator: Operator, house: House, session: UnitOfWork
) -> VersionAnswer:
    """Let an archived version be deployed again."""
    return version_answer(await restore(session, name, number, actor_of(request, operator)), house)


@router.delete("/{name}/versions/{number}", status_code=204, summary="Remove a version", responses=_REFUSED)
async def delete_version(
    request: Request, name: ModelName, number: VersionNumber, operator: Operator, house: House
) -> Response:
    """Remove a version with its file, converted forms and searches; 409 while it is in service or checked."""
    await remove_version(house.database, house.uploads, name, number, actor_of(request, operator))
    return Response(status_code=204)


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
        answer = await _answer(house, session, model)
    return UploadAnswer(model=answer, version=VersionAnswer.model_validate(version))


async def _answer(house: Platform, session: AsyncSession, model: Model) -> ModelAnswer:
    observed = await Deployments(session).observed(model.id)
    state = next((row.state for row in observed if row.node == house.node), None)
    tags = await Models(session).tags_of([model.id])
    return _model(house, model, state, tags.get(model.id, ()))


def _model(house: Platform, model: Model, state: str | None, tags: Sequence[str]) -> ModelAnswer:
    latest = model.next_version - 1
    return ModelAnswer.model_validate(
        {
            **{field: getattr(model, field) for field in ("name", "task", "description", "created_by")},
            "tags": list(tags),
            "created_at": model.created_at,
            "updated_at": model.updated_at,
            "latest_version": latest or None,
            "state": state,
            "default_for": next((m for m, name in house.defaults.targets.items() if name == model.name), None),
        }
    )
