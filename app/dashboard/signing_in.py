"""The sign-in page: at /login, and in the place of any page that asks for it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.dashboard.cookies import keep_session, keep_visit, session_cookie, visit
from app.dashboard.csrf import FIELD, SAFE, check_origin, check_token, form_token
from app.dashboard.kept_form import KeptForm, keep_form, open_form, seal_form
from app.dashboard.page import Page
from app.dashboard.problems import problem_page
from app.dashboard.rendering import bare
from app.dependencies import caller_of
from app.middleware import ASGIApp
from app.state import platform_of
from core.access.sessions import Principal, SignedIn, Stage
from core.errors import LimitExceeded, PlatformError, Unauthenticated

HOME: Final = "/dashboard/"
_INSIDE: Final = re.compile(r"/dashboard(?:/[\w\-./~%]*)?(?:\?[\w\-./~%&=+,:]*)?", re.ASCII)
_TOO_OLD: Final = "This page was too old, or cookies are blocked. Sign in once more."


@dataclass(frozen=True, slots=True)
class SignInPage(Page):
    """Name, password, and where to go afterwards."""

    template: ClassVar[str] = "pages/sign_in/page.html"
    token: str
    next: str = HOME
    name: str = ""
    error: str = ""
    kept: str = ""
    ended: bool = False
    """Whether somebody was signed in before, and was at work."""
    provider: str = ""
    """What the OpenID provider is called; empty where there is none."""

    @property
    def title(self) -> str:
        """See Page."""
        return "Sign in"


@dataclass(frozen=True, slots=True)
class CodePage(Page):
    """The code of the second factor, after the password."""

    template: ClassVar[str] = "pages/sign_in/code.html"
    token: str
    next: str = HOME
    error: str = ""
    kept: str = ""

    @property
    def title(self) -> str:
        """See Page."""
        return "One more step"


@dataclass(frozen=True, slots=True)
class ResumePage(Page):
    """What somebody was about to send when their session ended."""

    template: ClassVar[str] = "pages/sign_in/resume.html"
    form: KeptForm
    token: str
    back: str

    @property
    def title(self) -> str:
        """See Page."""
        return "Signed in again"


def sign_in_app(more: Sequence[Route] = ()) -> ASGIApp:
    """What answers at /login; `more` are routes of other ways in."""

    async def refused(request: Request, error: Exception) -> Response:
        return problem_page(request, error)

    routes = [
        Route("/login", _show),
        Route("/login", _sign_in, methods=["POST"]),
        Route("/login/code", _send_code, methods=["POST"]),
        *more,
    ]
    return Starlette(routes=routes, exception_handlers={PlatformError: refused, HTTPException: refused})


async def ask_to_sign_in(request: Request, half: Principal | None = None) -> Response:
    """The answer to whoever is not signed in: the sign-in page in the place of what they asked for.

    `half` has shown the password, and is asked for the second factor.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        return Response(status_code=401)
    by_htmx = "hx-request" in request.headers
    if request.method in SAFE:
        if by_htmx:  # a part of a page: the whole page asks anew, and is answered with the sign-in page
            return Response(status_code=401, headers={"HX-Refresh": "true"})
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if half is not None:
            return _code_page(request, half, 401, next=inside(path))
        return sign_in_page(request, 401, next=inside(path), ended=bool(session_cookie(request)))
    # A file of any size is not read for somebody who is not signed in, and could not be kept.
    uploads = request.url.path.endswith("/upload")
    kept = "" if uploads else seal_form(request, await keep_form(request))
    back = inside(urlsplit(request.headers.get("referer", "")).path)
    response = sign_in_page(request, 401, next=back, kept=kept, ended=True)
    if by_htmx:
        response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "body", "innerHTML"
    return response


async def _show(request: Request) -> Response:
    return sign_in_page(request, 200, next=inside(request.query_params.get("next", "")))


async def _sign_in(request: Request) -> Response:
    check_origin(request)
    form = await request.form()
    said = {name: value if isinstance(value, str) else "" for name, value in form.items()}
    name, back, kept = said.get("name", "").strip(), inside(said.get("next", "")), said.get("kept", "")
    seals, given = platform_of(request).access.seals, said.get(FIELD, "")
    if not visit(request) or not seals.fits("sign in", visit(request), given):
        return sign_in_page(request, 400, next=back, name=name, kept=kept, error=_TOO_OLD)
    access = platform_of(request).access
    try:
        signed_in = await access.sign_in.with_password(name, said.get("password", ""), caller_of(request))
    except (Unauthenticated, LimitExceeded) as error:
        response = sign_in_page(request, error.status, next=back, name=name, kept=kept, error=error.message)
        return with_patience(response, error)
    return await welcome(request, signed_in, back, kept)


async def _send_code(request: Request) -> Response:
    check_origin(request)
    form = await request.form()
    said = {name: value if isinstance(value, str) else "" for name, value in form.items()}
    back, kept, access = inside(said.get("next", "")), said.get("kept", ""), platform_of(request).access
    try:
        half = await access.sessions.resume(session_cookie(request))
    except Unauthenticated:
        return sign_in_page(request, 400, next=back, kept=kept, error="The code came too late. Begin once more.")
    await check_token(request, half.session_id)
    if half.stage is not Stage.SECOND_FACTOR:
        return RedirectResponse(back, 303)
    try:
        signed_in = await access.sign_in.with_second_factor(half, said.get("code", ""), caller_of(request))
    except (Unauthenticated, LimitExceeded) as error:
        response = _code_page(request, half, error.status, next=back, kept=kept, error=error.message)
        return with_patience(response, error)
    return await welcome(request, signed_in, back, kept)


def with_patience(response: Response, error: PlatformError) -> Response:
    """The same answer, saying how long to wait where the error does."""
    response.headers.update({key: value for key, value in error.headers().items() if key == "Retry-After"})
    return response


def _code_page(
    request: Request, half: Principal, status: int, *, next: str, kept: str = "", error: str = ""
) -> Response:
    return bare(request, CodePage(form_token(request, half.session_id), next, error, kept), status)


async def welcome(
    request: Request, signed_in: SignedIn, back: str, kept: str, *, secure: bool = False
) -> Response:
    """Begin the session, always under a new id; one that this browser was in ends. `secure` is known to be TLS."""
    sessions = platform_of(request).access.sessions
    with suppress(Unauthenticated):
        await sessions.logout(await sessions.resume(session_cookie(request)))
    response: Response = RedirectResponse(back, 303)
    form = open_form(request, kept)
    if signed_in.user.stage is Stage.SECOND_FACTOR:
        response = _code_page(request, signed_in.user, 200, next=back, kept=kept)
    elif form is not None and signed_in.user.stage is Stage.OPEN:
        token = form_token(request, signed_in.user.session_id)
        response = bare(request, ResumePage(form, token, back))
    keep_session(request, response, signed_in.cookie, secure=secure)
    return response


def sign_in_page(
    request: Request,
    status: int,
    *,
    next: str,
    name: str = "",
    error: str = "",
    kept: str = "",
    ended: bool = False,
) -> Response:
    """The page itself, with what went wrong, if anything has."""
    this_visit = visit(request) or secrets.token_hex(16)
    token = platform_of(request).access.seals.make("sign in", this_visit)
    oidc = platform_of(request).access.oidc
    provider = oidc.oidc.label if oidc else ""
    response = bare(request, SignInPage(token, next, name, error, kept, ended, provider), status)
    if this_visit != visit(request):
        keep_visit(request, response, this_visit)
    return response


def inside(path: str) -> str:
    """The path where it leads into the dashboard; its first page otherwise: nobody is sent elsewhere."""
    return path if len(path) <= 2048 and _INSIDE.fullmatch(path) and ".." not in path else HOME
