"""The keys that sign the tokens of the internal API: what each does, a new one, an end to one that has leaked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from fastapi import Path, Request
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.guard import Admin, pages
from app.dashboard.page import ACCESS, Page, Section
from app.dashboard.pages.access.tabs import TABS
from app.dashboard.rendering import render
from app.dependencies import House, actor_of
from app.internal.keys import key_answer
from core.control.key_changes import list_keys, remove_key, rotate_keys
from core.errors import BadRequest
from schemas.keys import KeyAnswer

router = pages()
PATH: Final = "/dashboard/access/keys"
SOON: Final = (("0", "at once"), ("3600", "in an hour"), ("86400", "in a day"))
KeyId = Annotated[str, Path(pattern=r"^(0|[0-9a-f]{16})$")]


@dataclass(frozen=True, slots=True)
class KeysPage(Page):
    """The ring."""

    template: ClassVar[str] = "pages/access/keys.html"
    section: ClassVar[Section] = ACCESS
    keys: Sequence[KeyAnswer]
    soon: tuple[tuple[str, str], ...] = SOON
    tabs: tuple[tuple[str, str], ...] = TABS

    @property
    def title(self) -> str:
        """See Page."""
        return "Keys"


@router.get("/access/keys")
async def show(request: Request, _: Admin, house: House) -> Response:
    """The keys; never their secrets."""
    return render(request, KeysPage([key_answer(facts) for facts in await list_keys(house.settings)]))


@router.post("/access/keys/rotate")
async def rotate(request: Request, user: Admin, house: House) -> Response:
    """Sign with a new key; tokens of the one before hold until they end by themselves."""
    said = str((await request.form()).get("activate_in_s", "0"))
    wait_s = float(said) if said in dict(SOON) else 0.0
    async with house.database.transaction() as session:
        await rotate_keys(session, house.settings, actor_of(request, user), wait_s)
    return _told(request, "There is a new key. Everybody stays signed in.")


@router.post("/access/keys/{kid}/remove")
async def remove(request: Request, kid: KeyId, user: Admin, house: House) -> Response:
    """Refuse all tokens that it has signed, within a second."""
    if (await request.form()).get("confirm") != kid:
        raise BadRequest("What was typed is not the key's id, so nothing was done.")
    async with house.database.transaction() as session:
        await remove_key(session, house.settings, actor_of(request, user), kid)
    return _told(request, f"Tokens that the key {kid} has signed are refused from now on.")


def _told(request: Request, message: str) -> Response:
    response = RedirectResponse(PATH, 303)
    flash(request, response, message)
    return response
