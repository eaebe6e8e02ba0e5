"""A model's versions, and one version: what it takes and gives, and what the checks say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import Filled
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.page import Crumb
from app.dashboard.pages.models.model import (
    Head,
    ModelName,
    ModelPage,
    VersionNumber,
    load_head,
    model_path,
    version_path,
)
from app.dashboard.rendering import fragment, render
from app.dependencies import House, Reading, actor_of
from app.internal.models import version_answer
from app.state import Platform
from core.access.sessions import Principal
from core.control.deploying import find_version
from core.control.model_changes import check_again
from core.control.version_changes import archive, remove_version, restore
from core.database.repositories.derived import DerivedArtifacts
from core.errors import BadRequest
from schemas.models import TensorAnswer, VersionAnswer

router = pages()


@dataclass(frozen=True, slots=True)
class VersionsPage(ModelPage):
    """All versions, and a place to upload the next."""

    template: ClassVar[str] = "pages/models/versions.html"
    tab: ClassVar[str] = "/versions"
    form: Filled[VersionAnswer] = field(default_factory=Filled)


@dataclass(frozen=True, slots=True)
class VersionPage(ModelPage):
    """One version."""

    template: ClassVar[str] = "pages/models/version.html"
    tab: ClassVar[str] = "/versions"
    head: Head
    version: VersionAnswer

    @property
    def title(self) -> str:
        """See Page."""
        return f"v{self.version.version}"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        above = Crumb("Models", "/dashboard/models"), Crumb(self.name, self.path)
        return (*above, Crumb("Versions", f"{self.path}/versions"))

    @property
    def tensors(self) -> Sequence[tuple[str, Sequence[TensorAnswer]]]:
        """What goes in and what comes out."""
        signature = self.version.signature
        return (("Inputs", signature.inputs), ("Outputs", signature.outputs)) if signature else ()

    @property
    def in_service(self) -> bool:
        """Whether it is to answer callers."""
        return any(share.version == self.version.version for share in self.head.shares)


@router.get("/models/{name}/versions")
async def versions(request: Request, name: ModelName, user: Viewer, session: Reading) -> Response:
    """The list."""
    return render(request, VersionsPage(await load_head(session, name, user)))


@router.get("/models/{name}/versions/{number}")
async def version(
    request: Request, name: ModelName, number: VersionNumber, user: Viewer, house: House, session: Reading
) -> Response:
    """One version; its report by itself for htmx, which asks each second while the checks run."""
    page = await _page(session, house, name, number, user)
    if "hx-request" in request.headers:
        return fragment(request, "pages/models/report.html", page)
    return render(request, page)


@router.post("/models/{name}/versions/{number}/archive")
async def put_away(
    request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House
) -> Response:
    """Put it away: it stays, but cannot be deployed."""
    async with house.database.transaction() as session:
        await archive(session, name, number, actor_of(request, user))
    return _told(request, version_path(name, number), f"Version {number} is archived; it can be restored here.")


@router.post("/models/{name}/versions/{number}/restore")
async def take_back(
    request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House
) -> Response:
    """Let it be deployed again."""
    async with house.database.transaction() as session:
        await restore(session, name, number, actor_of(request, user))
    return _told(request, version_path(name, number), f"Version {number} can be deployed again.")


@router.post("/models/{name}/versions/{number}/delete")
async def delete(
    request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House
) -> Response:
    """Remove it for good, where it was named."""
    if (await request.form()).get("confirm") != f"{name} v{number}":
        raise BadRequest("What was typed is not the name of this version, so nothing was done.")
    await remove_version(house.database, house.uploads, name, number, actor_of(request, user))
    return _told(request, f"{model_path(name)}/versions", f"Version {number} of {name} is removed.")


@router.post("/models/{name}/versions/{number}/check")
async def check(
    request: Request, name: ModelName, number: VersionNumber, user: Operator, house: House
) -> Response:
    """Run all checks again."""
    async with house.database.transaction() as session:
        await check_again(session, name, number, actor_of(request, user))
    house.validations.wake()
    return RedirectResponse(version_path(name, number), 303)


def _told(request: Request, path: str, message: str) -> Response:
    response = RedirectResponse(path, 303)
    flash(request, response, message)
    return response


async def _page(session: AsyncSession, house: Platform, name: str, number: int, user: Principal) -> VersionPage:
    row = await find_version(session, name, number)
    derived = await DerivedArtifacts(session).list([row.id])
    return VersionPage(await load_head(session, name, user), version_answer(row, house, derived))
