"""Files that pages send: streamed to the store, the form's token and its other fields checked before the file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from app.dashboard.csrf import FIELD, require_token
from app.internal.upload_form import BeforeFile, Form, receive_form
from app.state import Platform
from core.access.sessions import Principal
from core.errors import PlatformError

_MOST_DISCARDED: Final = 64 << 20
_DISCARD_S: Final = 10.0


async def receive_upload(
    request: Request, user: Principal, house: Platform, fields: frozenset[str], check: BeforeFile
) -> Form:
    """Read a page's form with a file; its token comes first. `check` is told the fields before the file is kept.

    Raises Forbidden for another page's form, and what `check` and `receive_form` raise.
    """

    async def before_file(said: Mapping[str, str]) -> None:
        require_token(request, user.session_id, said.get(FIELD, ""))
        await check(said)

    try:
        return await receive_form(request, house.store, fields | {FIELD}, before_file)
    except PlatformError:
        await _discard_rest(request)
        raise


def done(request: Request, path: str) -> Response:
    """The answer after an upload: the page at `path`; a script is told where to go."""
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": path})
    return RedirectResponse(path, 303)


async def _discard_rest(request: Request) -> None:
    """Read on for a while: a browser that is still sending would not see the answer."""
    left = _MOST_DISCARDED
    try:
        async with asyncio.timeout(_DISCARD_S):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):
        return
