"""Signing in by an OpenID provider: a browser goes there from the sign-in page, and comes back with a code.

What binds the two ways together is a cookie of ten minutes, sealed and kept from scripts. It holds the state,
and where to go afterwards; nothing in it is of use to anybody but the browser that it was given to.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.dashboard.cookies import forget_oidc, keep_oidc, oidc_cookie
from app.dashboard.signing_in import HOME, inside, sign_in_page, welcome, with_patience
from app.dependencies import caller_of
from app.state import platform_of
from core.control.oidc_sign_in import OidcSignIn
from core.errors import Forbidden, LimitExceeded, NotFound, Unavailable

CALLBACK: Final = "/login/oidc/callback"
_PURPOSE: Final = "oidc cookie"
_LIFE_S: Final = 600
_STRAY: Final = (
    "This sign-in was not begun in this browser, or more than ten minutes ago, or cookies are blocked. "
    "Begin once more."
)


async def _begin(request: Request) -> Response:
    oidc = _oidc(request)
    back, state = inside(request.query_params.get("next", "")), secrets.token_hex(32)
    try:
        address = await oidc.address(state, _redirect_uri(request, oidc), caller_of(request))
    except (LimitExceeded, Unavailable) as error:
        response = sign_in_page(request, error.status, next=back, error=error.message)
        return with_patience(response, error)
    response = RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})
    keep_oidc(request, response, _seal(request, state, back), _LIFE_S, secure=_is_secure(request, oidc))
    return response


async def _come_back(request: Request) -> Response:
    oidc = _oidc(request)
    state, back = _open(request, oidc_cookie(request))
    try:
        _check(request, oidc, state)
        code = request.query_params.get("code", "")
        signed_in = await oidc.finish(state, code, _redirect_uri(request, oidc), caller_of(request))
    except (Forbidden, LimitExceeded, Unavailable) as error:
        response = with_patience(sign_in_page(request, error.status, next=back, error=error.message), error)
    else:
        response = await welcome(request, signed_in, back, "", secure=_is_secure(request, oidc))
        response.headers["Cache-Control"] = "no-store"
    forget_oidc(response)
    return response


ROUTES: Final = (Route("/login/oidc", _begin), Route(CALLBACK, _come_back))


def _check(request: Request, oidc: OidcSignIn, state: str) -> None:
    """Raise Forbidden unless the provider has sent back the sign-in that this browser began."""
    said = request.query_params
    if not state or not hmac.compare_digest(said.get("state", "").encode(), state.encode()):
        raise Forbidden(_STRAY)
    if said.get("iss", oidc.oidc.issuer) != oidc.oidc.issuer:  # RFC 9207
        raise Forbidden("Another provider than ours has answered, so nobody was signed in.")
    if "error" in said:
        raise Forbidden("The provider did not sign you in. Begin once more, or ask an administrator.")


def _oidc(request: Request) -> OidcSignIn:
    oidc = platform_of(request).access.oidc
    if oidc is None:
        raise NotFound("No sign-in provider is set up here.")
    return oidc


def _redirect_uri(request: Request, oidc: OidcSignIn) -> str:
    return (oidc.oidc.public_url or f"{request.url.scheme}://{request.url.netloc}") + CALLBACK


def _is_secure(request: Request, oidc: OidcSignIn) -> bool:
    return _redirect_uri(request, oidc).startswith("https:")


def _seal(request: Request, state: str, back: str) -> str:
    where = base64.urlsafe_b64encode(back.encode()).decode()
    text = f"{state}.{int(time.time())}.{where}"
    return f"{text}.{platform_of(request).access.seals.make(_PURPOSE, text)}"


def _open(request: Request, cookie: str) -> tuple[str, str]:
    """State and where to go afterwards; an empty state for a cookie that is not ours, or too old."""
    text, _, seal = cookie.rpartition(".")
    if not text or not platform_of(request).access.seals.fits(_PURPOSE, text, seal):
        return "", HOME
    state, made, where = text.split(".")
    if not 0 <= time.time() - int(made) + 1 <= _LIFE_S:
        return "", HOME
    try:
        return state, inside(base64.urlsafe_b64decode(where).decode())
    except (binascii.Error, ValueError):
        return state, HOME
