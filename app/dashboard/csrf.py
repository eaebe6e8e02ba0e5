"""Only our own pages may send our forms.

Two locks, each enough by itself: the browser says where a request comes from (Sec-Fetch-Site, or Origin), and the
form carries a token that only its session's pages have.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from app.state import platform_of
from core.errors import Forbidden

FIELD: Final = "csrf"
HEADER: Final = "x-csrf-token"
SAFE: Final = ("GET", "HEAD", "OPTIONS")
_LENGTH = 64


def form_token(request: Request, session_id: str) -> str:
    """What the forms of a session carry."""
    return platform_of(request).access.seals.make("form", session_id)


def check_origin(request: Request) -> None:
    """Raise Forbidden where the browser says that another site sends this."""
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        ours = fetch_site in ("same-origin", "none")
    else:
        origin = request.headers.get("origin")
        ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not ours:
        raise Forbidden(
            "This form was sent from another site, so nothing was done. If a proxy stands before Pulvinar, let it "
            "pass the Host header on unchanged."
        )


async def check_token(request: Request, session_id: str) -> None:
    """Raise Forbidden where the form, or the header of a script's request, does not carry the session's token."""
    sent = request.headers.get(HEADER)
    if sent is None and request.url.path.endswith("/upload"):
        sent = ""  # the body of such a path may be of any size, so it is never read whole
    if sent is None:
        field = (await request.form()).get(FIELD)
        sent = field if isinstance(field, str) else ""
    require_token(request, session_id, sent)


def is_streamed(request: Request) -> bool:
    """Whether this is an upload without scripts, whose token stands in a form that is read as it comes.

    Who reads it asks `require_token` before the file: `app.dashboard.uploading` does.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return request.url.path.endswith("/upload") and kind == "multipart/form-data" and HEADER not in request.headers


def require_token(request: Request, session_id: str, sent: str) -> None:
    """Raise Forbidden where `sent` is not the session's token."""
    if len(sent) != _LENGTH or not platform_of(request).access.seals.fits("form", session_id, sent):
        raise Forbidden(
            "This form is not from your present session, so nothing was done. Load the page and try again."
        )
