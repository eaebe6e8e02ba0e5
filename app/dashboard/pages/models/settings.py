"""What is said of a model, and its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from fastapi import Request
from pydantic import BaseModel, Field, field_validator
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled, fill
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.pages.access.tabs import lines
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, load_head, model_path
from app.dashboard.pages.sharing import Sharing, load_sharing
from app.dashboard.rendering import render
from app.dependencies import House, Reading, actor_of
from app.state import Platform
from app.tallies import traffic_of
from core.access.sessions import Principal
from core.control.model_changes import change_model, checked_tags, remove_model
from core.database.repositories.samples import Samples
from core.errors import BadRequest, Unprocessable
from schemas.models import Modality

router = pages()


class DescriptionForm(BaseModel):
    """What is said of a model."""

    description: str = Field("", max_length=4000)
    tags: list[str] = Field(default_factory=list)

    @field_validator("tags", mode="before")
    @classmethod
    def _several(cls, value: str | list[str]) -> list[str]:
        try:
            return checked_tags(lines(value) or [])
        except Unprocessable as error:
            raise ValueError(error.message) from error


class DefaultForm(BaseModel):
    """Of which modality the model is to be the default."""

    modality: Modality | None = None


@dataclass(frozen=True, slots=True)
class SettingsPage(ModelPage):
    """The page."""

    template: ClassVar[str] = "pages/models/settings.html"
    tab: ClassVar[str] = "/settings"
    head: Head
    answered: int
    samples: int
    default_for: str
    sharing: Sharing
    form: Filled[DescriptionForm] = field(default_factory=Filled)

    @property
    def size_bytes(self) -> int:
        """What the versions take on disk, converted forms left out."""
        return sum(version.size_bytes for version in self.head.versions)


@router.get("/models/{name}/settings")
async def settings(request: Request, name: ModelName, user: Viewer, house: House, session: Reading) -> Response:
    """The page."""
    return render(request, await _page(session, house, name, user))


@router.post("/models/{name}/settings")
async def change(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Change the description and the tags."""
    form = fill(DescriptionForm, await request.form())
    if form.value is None:
        async with house.database.session() as session:
            return render(request, await _page(session, house, name, user, form), 422)
    async with house.database.transaction() as session:
        await change_model(session, name, form.value.model_dump(), actor_of(request, user))
    return _told(request, f"{model_path(name)}/settings", "Description and tags are saved.")


@router.post("/models/{name}/default")
async def make_default(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Let the model answer what `/predict` gets of its modality, or let it no longer."""
    await house.uploads.check_existing(name)
    now = next((modality for modality, target in house.defaults.targets.items() if target == name), None)
    async with house.database.transaction() as session:
        if now is None:
            await house.defaults.activate(session, name, None, actor_of(request, user))
        else:
            await house.defaults.deactivate(session, now, actor_of(request, user))
    await house.defaults.refresh()
    house.reconciler.wake()
    said = "It is no default any more." if now else "It answers /predict for its kind of content from now on."
    return _told(request, f"{model_path(name)}/settings", said)


@router.post("/models/{name}/delete")
async def delete(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Remove the model with all that belongs to it."""
    if (await request.form()).get("confirm") != name:
        raise BadRequest("The name that was typed is not the model's, so nothing was done.")
    await remove_model(house.database, house.uploads, house.samples, name, actor_of(request, user))
    house.reconciler.wake()
    return _told(request, "/dashboard/models", f"The model {name} is removed.")


def _told(request: Request, path: str, message: str) -> Response:
    response = RedirectResponse(path, 303)
    flash(request, response, message)
    return response


async def _page(
    session: AsyncSession,
    house: Platform,
    name: str,
    user: Principal,
    form: Filled[DescriptionForm] | None = None,
) -> SettingsPage:
    head = await load_head(session, name, user)
    traffic = traffic_of(house, await house.reconciler.totals(name)).get(name)
    samples, _ = await Samples(session).totals(head.model.id)
    default_for = next((modality for modality, target in house.defaults.targets.items() if target == name), "")
    sharing = await load_sharing(session, head.model, user)
    answered = traffic.requests if traffic else 0
    return SettingsPage(head, answered, samples, default_for, sharing, form or Filled())
