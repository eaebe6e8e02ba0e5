"""Samples of a model's inputs: how many, which, more of them, none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, load_head, model_path
from app.dashboard.rendering import render
from app.dashboard.uploading import done, receive_upload
from app.dependencies import Cursor, House, Reading, actor_of
from core.access.sessions import Principal
from core.database.repositories.samples import Samples
from core.database.tables import Sample
from core.errors import BadRequest

router = pages()
_FIELDS: Final = frozenset({"label"})
_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class SamplesPage(ModelPage):
    """One page of a model's samples; what is in them is not given out."""

    template: ClassVar[str] = "pages/models/samples.html"
    tab: ClassVar[str] = "/samples"
    head: Head
    count: int
    size_bytes: int
    live: int
    rows: Sequence[Sample]
    next_cursor: str | None
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept_live(self) -> Mapping[str, object] | None:
        """How live inputs are kept, where they are."""
        spec = self.head.desired.spec if self.head.desired is not None and self.head.running else {}
        kept: Mapping[str, object] | None = spec.get("sample_live")
        return kept


@router.get("/models/{name}/samples")
async def samples(
    request: Request, name: ModelName, user: Viewer, session: Reading, cursor: Cursor = None
) -> Response:
    """The page."""
    return render(request, await _page(session, name, user, cursor or None))


@router.post("/models/{name}/samples/upload")
async def add(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Take one input, or a zip of them; all of it or nothing."""
    model = await house.uploads.check_existing(name)

    async def check(_: Mapping[str, str]) -> None:
        return None

    form = await receive_upload(request, user, house, _FIELDS, check)
    label = form.fields.get("label", "").strip() or None
    added = await house.samples.add(model, form.file, form.filename, label, None, actor_of(request, user))
    response = done(request, f"{model_path(name)}/samples")
    known = f", {added.known} were there already" if added.known else ""
    flash(request, response, f"Samples added: {added.added}{known}.")
    return response


@router.post("/models/{name}/samples/clear")
async def clear(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Remove all of a model."""
    if (await request.form()).get("confirm") != name:
        raise BadRequest("The name that was typed is not the model's, so nothing was done.")
    model = await house.uploads.check_existing(name)
    removed = await house.samples.remove(model, actor_of(request, user))
    response = RedirectResponse(f"{model_path(name)}/samples", 303)
    flash(request, response, f"Samples removed: {removed}.")
    return response


async def _page(session: AsyncSession, name: str, user: Principal, cursor: str | None) -> SamplesPage:
    head = await load_head(session, name, user)
    rows, next_cursor = await Samples(session).page(head.model.id, _ROWS, cursor)
    count, size_bytes = await Samples(session).totals(head.model.id)
    live, _ = await Samples(session).totals(head.model.id, "live")
    query = {"cursor": cursor} if cursor else {}
    return SamplesPage(head, count, size_bytes, live, rows, next_cursor, query)
