"""Errors as pages, and as the small parts of pages that htmx asks for: what happened, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, Final

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard.page import Page
from app.dashboard.rendering import bare, fragment, render
from app.errors import INTERNAL_MESSAGE, request_id_of
from core.errors import PlatformError

log = structlog.get_logger(__name__)

_TITLES: Final = {
    400: "That cannot be read",
    403: "Not allowed",
    404: "Nothing here",
    405: "Not possible here",
    409: "That cannot be done now",
    413: "Too large",
    422: "That is not right yet",
    429: "Too many requests",
    500: "An error of ours",
    503: "Not available now",
}
_NOTHING_HERE: Final = "There is no page at this address. It may have been removed, or the link is wrong."


@dataclass(frozen=True, slots=True)
class ProblemPage(Page):
    """What went wrong."""

    template: ClassVar[str] = "pages/errors/page.html"
    status: int
    heading: str
    sentence: str
    request_id: str

    @property
    def title(self) -> str:
        """See Page."""
        return self.heading


def add_problem_pages(app: FastAPI) -> None:
    """Let every error of this app leave as a page."""

    async def answer(request: Request, error: Exception) -> Response:
        return problem_page(request, error)

    for kind in (PlatformError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def problem_page(request: Request, error: Exception) -> Response:
    """An error as the page, or the part of one, that was asked for."""
    status, sentence, headers = _told(error)
    heading = _TITLES.get(status) or HTTPStatus(status).phrase
    page = ProblemPage(status, heading, sentence, request_id_of(request.scope))
    if getattr(request.state, "principal", None) is None:
        response = bare(request, page, status)
    elif "hx-request" in request.headers:
        response = fragment(request, "pages/errors/part.html", page, status)
    else:
        response = render(request, page, status)
    response.headers.update(headers)
    return response


def _told(error: Exception) -> tuple[int, str, dict[str, str]]:
    if isinstance(error, PlatformError):
        if error.status >= 500 and error.__cause__ is not None:
            log.warning("page.failed", code=error.code, cause=repr(error.__cause__)[:500])
        return error.status, error.message, error.headers()
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        status = 404 if first["loc"][0] == "path" else 422
        return status, _NOTHING_HERE if status == 404 else f"{first['loc'][-1]}: {first['msg']}.", {}
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, PlatformError):
            return _told(error.__cause__)
        sentence = _NOTHING_HERE if error.status_code in (404, 405) else str(error.detail)
        return error.status_code, sentence, dict(error.headers or {})
    return 500, INTERNAL_MESSAGE, {}
