"""Imports: models fetched from a hub or a package index in the background."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from app.dependencies import Cursor, House, Limit, Operator, Reading, Viewer, actor_of
from core.control.imports import LOST, is_lost
from core.control.uploads import Told
from core.database.repositories.imports import Imports as Rows
from core.database.tables import Import
from core.errors import NotFound
from schemas.base import ErrorBody, Page
from schemas.imports import ImportAnswer, ImportCreate

router = APIRouter(prefix="/imports", tags=["imports"])

ImportId = Annotated[int, Path(ge=1, le=2_000_000_000, description="The import's id.")]


@router.post(
    "",
    status_code=202,
    summary="Import a model",
    responses={403: {"model": ErrorBody}, 409: {"model": ErrorBody}, 429: {"model": ErrorBody}},
)
async def start_import(request: Request, body: ImportCreate, operator: Operator, house: House) -> ImportAnswer:
    """Fetch a model and add it, or its next version. It goes on in the background: ask for it again to follow."""
    told = Told(task=body.task, description=body.description, manifest=body.manifest)
    return import_answer(await house.imports.start(body.source, body.name, told, actor_of(request, operator)))


@router.get("", summary="List imports")
async def list_imports(
    _: Viewer, session: Reading, limit: Limit = 50, cursor: Cursor = None
) -> Page[ImportAnswer]:
    """Imports, newest first; the last 1000 are remembered."""
    rows, next_cursor = await Rows(session).page(limit, cursor)
    return Page(items=[import_answer(row) for row in rows], next_cursor=next_cursor)


@router.get("/{import_id}", summary="One import")
async def get_import(import_id: ImportId, _: Viewer, session: Reading) -> ImportAnswer:
    """How far an import is, what it became, or why it failed."""
    row = await Rows(session).get(import_id)
    if row is None:
        raise NotFound(f"There is no import {import_id}.")
    return import_answer(row)


@router.delete("/{import_id}", summary="Cancel an import", responses={409: {"model": ErrorBody}})
async def cancel_import(request: Request, import_id: ImportId, operator: Operator, house: House) -> ImportAnswer:
    """End an import that is under way; what has come is kept, so that another one goes on from there."""
    return import_answer(await house.imports.cancel(import_id, actor_of(request, operator)))


def import_answer(row: Import) -> ImportAnswer:
    """An import as the wire has it; one whose process has died has failed."""
    fields = ("id", "source", "state", "reason", "done_bytes", "total_bytes", "commit", "version", "created_by")
    value = {
        **{field: getattr(row, field) for field in fields},
        "name": row.model,
        "created_at": row.created_at,
        "ended_at": row.ended_at,
    }
    if is_lost(row):
        value.update(state="failed", reason=LOST)
    return ImportAnswer.model_validate(value)
