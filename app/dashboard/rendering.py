"""Pages from their contexts: Jinja, escaping everything, refusing what a context does not have."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.dashboard import words
from app.dashboard.assets import ASSETS
from app.dashboard.compression import Compressed, compress, takes_gzip
from app.dashboard.cookies import drop_flash, take_flash, theme
from app.dashboard.csrf import form_token
from app.dashboard.page import Frame, Health, Page
from app.state import Platform, platform_of
from core.access.sessions import Principal

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES: Final = Path(__file__).resolve().parents[2] / "templates"
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; font-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every page. Nothing inline runs and nothing from elsewhere loads; Tabler's own arrows are `data:`."""
_VERSION: Final = version("pulvinar")


@cache
def environment(*, watch: bool = False) -> Environment:
    """The templates, compiled once; with `watch`, again when their file changes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # a start need not wait for it

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=watch,
    )
    made.globals["asset"] = ASSETS.url
    for name in ("ago", "browser", "count", "ms", "percent", "points", "rate", "significant", "size"):
        made.filters[name] = getattr(words, name)
    return made


def render(request: Request, page: Page, status: int = 200) -> Response:
    """A whole page in its frame, for whoever is signed in."""
    principal: Principal = request.state.principal
    response = _html(request, page.template, status, page=page, frame=_frame(request, principal))
    drop_flash(request, response)
    return response


def fragment(request: Request, template: str, page: object, status: int = 200) -> Response:
    """A part of a page, by the template that the whole page includes for it."""
    principal: Principal = request.state.principal
    return _html(request, template, status, page=page, token=form_token(request, principal.session_id))


def fragment_for_all(request: Request, template: str, page: object) -> Compressed:
    """A part of a page that is the same for everybody. It may have no form, which needs the token of a session."""
    return compress(_text(request, template, page=page).encode())


def bare(request: Request, page: Page, status: int = 200) -> Response:
    """A page without the frame, for whoever is not signed in."""
    return _html(request, page.template, status, page=page, theme=theme(request))


def _html(request: Request, template: str, status: int, **values: object) -> Response:
    body = _text(request, template, **values).encode()
    if not takes_gzip(request):
        return HTMLResponse(body, status, headers={**HEADERS, "Vary": "Accept-Encoding"})
    return compress(body).response(request, "text/html", HEADERS, status)


def _text(request: Request, template: str, **values: object) -> str:
    watch = not platform_of(request).settings.server.prod
    return environment(watch=watch).get_template(template).render(request_path=request.url.path, **values)


def _frame(request: Request, principal: Principal) -> Frame:
    platform = platform_of(request)
    return Frame(
        user=principal.name,
        role=principal.role,
        theme=theme(request),
        token=form_token(request, principal.session_id),
        health=health_of(platform),
        flash=take_flash(request),
        version=_VERSION,
        sections=tuple(one for one in request.app.state.sections if principal.role.allows(one.least)),
    )


def health_of(platform: Platform) -> Health:
    """Whether all that should answer does, in a word and a sentence."""
    waiting = platform.not_ready()
    if platform.stopping:
        return Health("failed", "This node is stopping.")
    if not waiting:
        return Health("serving", "All that should answer does.")
    names = ", ".join(sorted(waiting)[:3]) + (" and others" if len(waiting) > 3 else "")
    failed = any(state.startswith("failed") for state in waiting.values())
    verb = "does" if len(waiting) == 1 else "do"
    return Health("failed" if failed else "loading", f"{names} {verb} not answer yet.")
