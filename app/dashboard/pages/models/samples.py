"""Samples of a model's inputs: how many, which, more of them, none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from fastapi import Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.pages.models.desired import desire
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, load_head, model_path
from app.dashboard.rendering import render
from app.dashboard.uploading import done, receive_upload
from app.dependencies import Cursor, House, Reading, actor_of
from app.state import Platform
from core.access.sessions import Principal
from core.control.deploying import find_model
from core.database.repositories.deployments import Deployments
from core.database.repositories.samples import Samples
from core.database.tables import Sample
from core.errors import BadRequest, Conflict, PlatformError
from schemas.deployments import SampleLive

router = pages()
_FIELDS: Final = frozenset({"label"})
_ROWS: Final = 50
_USUAL: Final = SampleLive.model_validate({})


class LiveForm(BaseModel):
    """Which live inputs are kept; the part of the calls in percent."""

    keep: bool = False
    rate_percent: float = Field(_USUAL.rate * 100, gt=0, le=100)
    max_count: int = Field(_USUAL.max_count, ge=1, le=100_000)

    def sample_live(self) -> dict[str, object] | None:
        """As a deployment keeps it."""
        if not self.keep:
            return None
        return SampleLive(rate=round(self.rate_percent / 100, 9), max_count=self.max_count).model_dump()


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
    form: Filled[LiveForm] = field(default_factory=Filled)

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


@router.post("/models/{name}/samples/live")
async def keep_live(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Keep some of what callers send from now on, or nothing of it."""
    form = fill(LiveForm, await request.form())
    status = 422
    if form.value is not None:
        try:
            await _require_service(house, name)
            await desire(request, user, house, name, {"sample_live": form.value.sample_live()})
            response = RedirectResponse(f"{model_path(name)}/samples", 303)
            said = "Some live inputs are kept" if form.value.keep else "No live inputs are kept"
            flash(request, response, f"{said} from now on.")
            return response
        except PlatformError as error:
            form, status = form.refused(error), error.status
    async with house.database.session() as session:
        return render(request, await _page(session, name, user, None, form), status)


@router.post("/models/{name}/samples/clear")
async def clear(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Remove all of a model, or those kept from live calls."""
    form = await request.form()
    if form.get("confirm") != name:
        raise BadRequest("The name that was typed is not the model's, so nothing was done.")
    model = await house.uploads.check_existing(name)
    kind = "live" if form.get("kind") == "live" else None
    removed = await house.samples.remove(model, actor_of(request, user), kind=kind)
    response = RedirectResponse(f"{model_path(name)}/samples", 303)
    flash(request, response, f"Samples removed: {removed}.")
    return response


async def _require_service(house: Platform, name: str) -> None:
    """Raise Conflict where nothing is in service: keeping inputs would begin to serve, which nobody asked for."""
    async with house.database.session() as session:
        now = await Deployments(session).get((await find_model(session, name)).id)
    if now is None or not now.running:
        raise Conflict("The model is not in service, so there are no live inputs. Deploy it first.")


async def _page(
    session: AsyncSession, name: str, user: Principal, cursor: str | None, form: Filled[LiveForm] | None = None
) -> SamplesPage:
    head = await load_head(session, name, user)
    rows, next_cursor = await Samples(session).page(head.model.id, _ROWS, cursor)
    count, size_bytes = await Samples(session).totals(head.model.id)
    live, _ = await Samples(session).totals(head.model.id, "live")
    query = {"cursor": cursor} if cursor else {}
    return SamplesPage(head, count, size_bytes, live, rows, next_cursor, query, form or Filled())
