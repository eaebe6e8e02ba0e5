"""The search box: models, tokens and pages by their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import Query, Request
from starlette.responses import Response

from app.dashboard.guard import Viewer, pages
from app.dashboard.page import Page, Section
from app.dashboard.rendering import fragment, render
from app.dependencies import Reading
from core.access.roles import Role
from core.access.sessions import Principal
from core.database.repositories.models import Models
from core.database.repositories.tokens import Tokens

router = pages()
_MOST = 8


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was found."""

    kind: str
    icon: str
    title: str
    path: str


@dataclass(frozen=True, slots=True)
class SearchPage(Page):
    """What was found."""

    template: ClassVar[str] = "pages/search/page.html"
    query: str
    found: tuple[Found, ...]

    @property
    def title(self) -> str:
        """See Page."""
        return "Search"


@router.get("/search")
async def search(
    request: Request, user: Viewer, session: Reading, q: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """At most eight of each kind; as a list alone for the box itself."""
    query = "".join(character for character in q if character.isprintable()).strip()
    found = await _find(session, user, request.app.state.sections, query) if query else ()
    page = SearchPage(query, found)
    if "hx-request" in request.headers:
        return fragment(request, "pages/search/list.html", page)
    return render(request, page)


async def _find(session: Reading, user: Principal, sections: tuple[Section, ...], query: str) -> tuple[Found, ...]:
    models, _ = await Models(session).page(_MOST, search=query)
    found = [Found("Model", "box", model.name, f"/dashboard/models/{model.name}") for model in models]
    if user.role.allows(Role.ADMIN):
        tokens = await Tokens(session).named_like(query, _MOST)
        found += [Found("Token", "key", token.name, f"/dashboard/access/tokens/{token.id}") for token in tokens]
    found += [
        Found("Page", one.icon, one.title, one.path)
        for one in sections
        if query.lower() in one.title.lower() and user.role.allows(one.least)
    ]
    return tuple(found)
