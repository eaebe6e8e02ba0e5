"""Samples of a model's inputs: add, list, remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.dependencies import Cursor, House, Limit, Operator, Reading, Viewer, actor_of
from app.internal.models import ModelName
from app.internal.upload_form import form_doc, receive_form
from core.control.deploying import find_model
from core.database.repositories.samples import Samples
from core.errors import NotFound
from schemas.base import ErrorBody
from schemas.samples import SampleAnswer, SampleKind, SamplePage, SamplesAdded, SamplesRemoved

router = APIRouter(prefix="/models/{name}/samples", tags=["samples"])

SampleId = Annotated[int, Path(ge=1, le=2**31 - 1, description="The sample's id.")]
Kind = Annotated[SampleKind | None, Query(description="Only those of this kind.")]
_FIELDS = frozenset({"label", "labels"})
_UPLOAD_DOC = form_doc(
    "One input, or a zip of them, in which a labels.csv may lie.",
    {
        "label": {"type": "string", "description": "The right answer, for one input."},
        "labels": {"type": "string", "description": "The text of a labels.csv or labels.jsonl."},
    },
)


@router.post(
    "",
    status_code=201,
    summary="Add samples",
    openapi_extra=_UPLOAD_DOC,
    responses={404: {"model": ErrorBody}, 413: {"model": ErrorBody}, 415: {"model": ErrorBody}},
)
async def add_samples(request: Request, name: ModelName, operator: Operator, house: House) -> SamplesAdded:
    """Add one input, or a zip of them. All of an upload is taken, or nothing."""
    model = await house.uploads.check_existing(name)
    form = await receive_form(request, house.store, _FIELDS)
    label, labels = form.fields.get("label"), form.fields.get("labels")
    done = await house.samples.add(model, form.file, form.filename, label, labels, actor_of(request, operator))
    async with house.database.session() as session:
        count, _ = await Samples(session).totals(model.id)
    return SamplesAdded(added=done.added, known=done.known, count=count)


@router.get("", summary="List samples")
async def list_samples(
    name: ModelName, _: Viewer, session: Reading, limit: Limit = 50, cursor: Cursor = None, kind: Kind = None
) -> SamplePage:
    """Samples in the order they came."""
    model = await find_model(session, name)
    rows, next_cursor = await Samples(session).page(model.id, limit, cursor, kind=kind)
    count, size_bytes = await Samples(session).totals(model.id, kind)
    items = [SampleAnswer.model_validate(row) for row in rows]
    return SamplePage(items=items, next_cursor=next_cursor, count=count, size_bytes=size_bytes)


@router.delete("", summary="Remove all samples")
async def remove_samples(
    request: Request, name: ModelName, operator: Operator, house: House, kind: Kind = None
) -> SamplesRemoved:
    """Remove all samples of a model, or all of one kind."""
    model = await house.uploads.check_existing(name)
    return SamplesRemoved(removed=await house.samples.remove(model, actor_of(request, operator), kind=kind))


@router.delete("/{sample_id}", status_code=204, summary="Remove a sample")
async def remove_sample(
    request: Request, name: ModelName, sample_id: SampleId, operator: Operator, house: House
) -> Response:
    """Remove one sample."""
    model = await house.uploads.check_existing(name)
    if not await house.samples.remove(model, actor_of(request, operator), ids=[sample_id]):
        raise NotFound(f"The model {name} has no sample {sample_id}.")
    return Response(status_code=204)
