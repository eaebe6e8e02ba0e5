"""One's own sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.dependencies import House, Viewer, actor_of
from core.database.repositories.sessions import Sessions
from core.database.tables import Session
from core.errors import NotFound
from schemas.auth import SessionAnswer
from schemas.base import Page

SessionId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]

router = APIRouter(prefix="/auth/sessions", tags=["auth"])


@router.get("", summary="My sessions")
async def my_sessions(principal: Viewer, house: House) -> Page[SessionAnswer]:
    """Where one is signed in, the session used last first; at most 1000."""
    return session_page(await house.access.sessions.open_sessions(principal.user_id), principal.session_id)


@router.delete("/{session_id}", status_code=204, summary="End one of my sessions")
async def end_session(request: Request, session_id: SessionId, principal: Viewer, house: House) -> Response:
    """End a session of one's own at once, as signing out there would."""
    async with house.database.transaction() as session:
        found = await Sessions(session).get(session_id)
        if found is None or found.user_id != principal.user_id or not await Sessions(session).revoke(session_id):
            raise NotFound("There is no such session.")
        await actor_of(request, principal).note(session, "auth.session_end", principal.name)
    return Response(status_code=204)


def session_page(rows: Sequence[Session], own: str) -> Page[SessionAnswer]:
    """Sessions as the wire has them."""
    items = [SessionAnswer.model_validate(row).model_copy(update={"current": row.id == own}) for row in rows]
    return Page(items=items, next_cursor=None)
