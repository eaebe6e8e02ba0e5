"""Uploading: a new model, or the next version of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from fastapi import Request
from starlette.responses import Response

from app.dashboard.csrf import FIELD
from app.dashboard.forms import WHOLE, Filled
from app.dashboard.guard import Operator, pages
from app.dashboard.page import MODELS, Page, Section
from app.dashboard.pages.models.model import ModelName, load_head, version_path
from app.dashboard.pages.models.versions import VersionsPage
from app.dashboard.rendering import fragment, render
from app.dashboard.uploading import done, receive_upload
from app.dependencies import House, actor_of
from core.control.uploads import Told
from core.database.tables import Model, Version
from core.errors import Forbidden, PlatformError
from core.tasks.registry import task_names
from schemas.base import Answer

router = pages()
_NEW: Final = frozenset({"name", "task", "description", "manifest"})
_NEXT: Final = frozenset({"task", "manifest"})


class NewModel(Answer):
    """The fields beside the file."""

    name: str


@dataclass(frozen=True, slots=True)
class UploadPage(Page):
    """A name, a file, and little else."""

    template: ClassVar[str] = "pages/models/new.html"
    section: ClassVar[Section] = MODELS
    tasks: Sequence[str]
    form: Filled[NewModel] = field(default_factory=Filled)

    @property
    def title(self) -> str:
        """See Page."""
        return "Upload a model"


@router.get("/models/-/new")
async def ask_for_model(request: Request, _: Operator) -> Response:
    """The form."""
    return render(request, UploadPage(task_names()))


@router.post("/models/-/upload")
async def upload_model(request: Request, user: Operator, house: House) -> Response:
    """Take a model with its first version; the page of that version shows the checks."""
    said: dict[str, str] = {}
    wrong: dict[str, str] = {}

    async def check(fields: Mapping[str, str]) -> None:
        said.update(_typed(fields))
        try:
            await house.uploads.check_new(said.get("name", ""))
        except PlatformError as error:
            wrong["name"] = error.message
            raise

    try:
        form = await receive_upload(request, user, house, _NEW, check)
        manifest = said.get("manifest") or None
        told = Told(form.filename, said.get("task") or None, said.get("description") or None, manifest)
        added = await house.uploads.add_model(form.file, said["name"], told, actor_of(request, user))
    except Forbidden:
        raise
    except PlatformError as error:
        page = UploadPage(task_names(), Filled(said, wrong or {WHOLE: error.message}))
        return _refused(request, page, error)
    return _added(request, house, *added)


@router.post("/models/{name}/upload")
async def upload_version(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Take the next version of a model; what serves now is not touched."""

    said: dict[str, str] = {}

    async def check(fields: Mapping[str, str]) -> None:
        said.update(_typed(fields))
        await house.uploads.check_existing(name)

    try:
        form = await receive_upload(request, user, house, _NEXT, check)
        told = Told(form.filename, said.get("task") or None, manifest=said.get("manifest") or None)
        added = await house.uploads.add_version(form.file, name, told, actor_of(request, user))
    except Forbidden:
        raise
    except PlatformError as error:
        async with house.database.session() as session:
            head = await load_head(session, name, user)
        return _refused(request, VersionsPage(head, Filled(said, {WHOLE: error.message})), error)
    return _added(request, house, *added)


def _typed(fields: Mapping[str, str]) -> dict[str, str]:
    """What was typed, for the form to hold it where it is refused."""
    return {key: value.strip() for key, value in fields.items() if key != FIELD}


def _refused(request: Request, page: UploadPage | VersionsPage, error: PlatformError) -> Response:
    """The form with what was typed; a script has that still, and is told why alone."""
    if "hx-request" in request.headers:
        return fragment(request, "pages/models/refused.html", page, error.status)
    return render(request, page, error.status)


def _added(request: Request, house: House, model: Model, version: Version) -> Response:
    house.validations.wake()
    return done(request, version_path(model.name, version.version))
