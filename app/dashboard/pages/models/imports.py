"""Models fetched from a hub or a package index: start one, watch it come, end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from fastapi import Path, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.page import MODELS, Crumb, Page, Section
from app.dashboard.rendering import fragment, render
from app.dependencies import House, Reading, actor_of
from app.internal.imports import import_answer
from core.access.roles import Role
from core.control.uploads import Told
from core.database.repositories.imports import Imports as Rows
from core.errors import PlatformError
from core.tasks.registry import task_names
from schemas.imports import ImportAnswer

router = pages()
PATH: Final = "/dashboard/models/-/imports"
_SHOWN: Final = 20
ImportId = Annotated[int, Path(ge=1, le=2_000_000_000)]


class ImportForm(BaseModel):
    """What to fetch, and what it is called here."""

    source: str = Field(max_length=1024)
    name: str = Field(max_length=63)
    task: str | None = Field(None, max_length=64)
    description: str | None = Field(None, max_length=4000)
    manifest: str | None = Field(None, max_length=1 << 19)


@dataclass(frozen=True, slots=True)
class ImportsPage(Page):
    """The form, and the imports of late."""

    template: ClassVar[str] = "pages/models/imports.html"
    section: ClassVar[Section] = MODELS
    rows: Sequence[ImportAnswer]
    can_change: bool
    form: Filled[ImportForm] = field(default_factory=Filled)
    tasks: Sequence[str] = ()

    @property
    def title(self) -> str:
        """See Page."""
        return "Fetch a model"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb(MODELS.title, MODELS.path),)

    @property
    def running(self) -> bool:
        """Whether anything is still to come."""
        return any(row.state == "running" for row in self.rows)


@router.get("/models/-/imports")
async def imports(request: Request, user: Viewer, session: Reading) -> Response:
    """The page; its list by itself for htmx, which asks while something comes."""
    page = ImportsPage(await _rows(session), user.role.allows(Role.OPERATOR), tasks=task_names())
    if "hx-request" in request.headers:
        return fragment(request, "pages/models/import_list.html", page)
    return render(request, page)


@router.post("/models/-/imports")
async def start(request: Request, user: Operator, house: House) -> Response:
    """Begin to fetch; it goes on in the background."""
    form = fill(ImportForm, await request.form())
    status = 422
    if form.value is not None:
        said = form.value
        told = Told(task=said.task, description=said.description, manifest=said.manifest)
        try:
            row = await house.imports.start(said.source, said.name, told, actor_of(request, user))
            return _told(request, f"{row.source} is being fetched as {row.model}.")
        except PlatformError as error:
            form, status = form.refused(error), error.status
    async with house.database.session() as session:
        page = ImportsPage(await _rows(session), can_change=True, form=form, tasks=task_names())
    return render(request, page, status)


@router.post("/models/-/imports/{import_id}/cancel")
async def cancel(request: Request, import_id: ImportId, user: Operator, house: House) -> Response:
    """End one that is under way; what has come is kept for the next try."""
    await house.imports.cancel(import_id, actor_of(request, user))
    return _told(request, "It is being ended; what has come is kept, so that another try goes on from there.")


async def _rows(session: AsyncSession) -> list[ImportAnswer]:
    rows, _ = await Rows(session).page(_SHOWN, None)
    return [import_answer(row) for row in rows]


def _told(request: Request, message: str) -> Response:
    response = RedirectResponse(PATH, 303)
    flash(request, response, message)
    return response
