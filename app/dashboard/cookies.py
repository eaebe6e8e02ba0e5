"""What a browser keeps for us: its session, its theme, and the word about what was just done."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from app.state import platform_of

# A browser takes the first name over TLS only, for this host and all its paths: no neighbour can plant it.
_SECURE: Final = "__Host-pulvinar"
_PLAIN: Final = "pulvinar"
_VISIT: Final = "pulvinar_visit"
_THEME: Final = "pulvinar_theme"
_FLASH: Final = "pulvinar_flash"
_OIDC: Final = "pulvinar_oidc"
_OIDC_SECURE: Final = "__Host-pulvinar_oidc"
_YEAR_S: Final = 365 * 24 * 3600
THEMES: Final = ("auto", "light", "dark")
_MAX_FLASH = 300


def session_cookie(request: Request) -> str:
    """The session that the browser is in; empty where there is none."""
    return request.cookies.get(_SECURE) or request.cookies.get(_PLAIN) or ""


def keep_session(request: Request, response: Response, value: str, *, secure: bool = False) -> None:
    """Let the browser keep a session until it is closed or the session ends; `secure` is known to be over TLS."""
    secure = secure or _over_tls(request)
    forget_session(response)
    name = _SECURE if secure else _PLAIN
    response.set_cookie(name, value, path="/", secure=secure, httponly=True, samesite="lax")


def forget_session(response: Response) -> None:
    """Let the browser forget its session."""
    response.delete_cookie(_SECURE, path="/", secure=True, httponly=True, samesite="lax")
    response.delete_cookie(_PLAIN, path="/", httponly=True, samesite="lax")


def visit(request: Request) -> str:
    """What tells this browser from others before anybody has signed in; empty at first."""
    value = request.cookies.get(_VISIT, "")
    return value if value.isalnum() and len(value) <= 64 else ""


def keep_visit(request: Request, response: Response, value: str) -> None:
    """Let the browser keep it."""
    response.set_cookie(_VISIT, value, path="/", secure=_over_tls(request), httponly=True, samesite="strict")


def oidc_cookie(request: Request) -> str:
    """The sign-in by a provider that this browser has begun; empty where there is none."""
    return request.cookies.get(_OIDC_SECURE) or request.cookies.get(_OIDC) or ""


def keep_oidc(request: Request, response: Response, value: str, life_s: int, *, secure: bool) -> None:
    """Let the browser keep it. `lax`, for the way back is begun by the provider's page."""
    name, secure = (_OIDC_SECURE, True) if secure or _over_tls(request) else (_OIDC, False)
    response.set_cookie(name, value, life_s, path="/", secure=secure, httponly=True, samesite="lax")


def forget_oidc(response: Response) -> None:
    """Let the browser forget it: a sign-in has one way back."""
    response.delete_cookie(_OIDC_SECURE, path="/", secure=True, httponly=True, samesite="lax")
    response.delete_cookie(_OIDC, path="/", httponly=True, samesite="lax")


def theme(request: Request) -> str:
    """`light`, `dark`, or `auto`, which is what the system says."""
    chosen = request.cookies.get(_THEME, "")
    return chosen if chosen in THEMES else THEMES[0]


def keep_theme(response: Response, chosen: str) -> None:
    """Let the browser keep a theme; scripts may read and write this one."""
    response.set_cookie(_THEME, chosen, max_age=_YEAR_S, path="/", samesite="lax")


def flash(request: Request, response: Response, message: str) -> None:
    """Say something on the next page that this browser asks for."""
    text = base64.urlsafe_b64encode(message[:_MAX_FLASH].encode()).decode()
    seal = platform_of(request).access.seals.make("flash", text)
    response.set_cookie(_FLASH, f"{text}.{seal}", max_age=60, path="/", httponly=True, samesite="lax")


def take_flash(request: Request) -> str:
    """What is to be said; `drop_flash` makes sure that it is said once."""
    text, _, seal = request.cookies.get(_FLASH, "").partition(".")
    if not text or not platform_of(request).access.seals.fits("flash", text, seal):
        return ""
    try:
        return base64.urlsafe_b64decode(text).decode()
    except (binascii.Error, ValueError):
        return ""


def drop_flash(request: Request, response: Response) -> None:
    """Forget what was said."""
    if _FLASH in request.cookies:
        response.delete_cookie(_FLASH, path="/", httponly=True, samesite="lax")


def _over_tls(request: Request) -> bool:
    """Whether the browser came over TLS, to us or to a proxy of ours.

    A form's Origin is written by the browser itself, so it tells what a proxy before us may not.
    """
    return request.url.scheme == "https" or urlsplit(request.headers.get("origin", "")).scheme == "https"
