"""A PlatformError in the words of the API that was called: native, Open Inference Protocol v2, or OpenAI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from core.errors import BadRequest, MalformedBody, PlatformError, Unprocessable

log = structlog.get_logger(__name__)

INTERNAL_MESSAGE = "An unexpected error happened here; the request id finds it in the server's log."
_HTTP_CODES: Final = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media",
    422: "unprocessable",
    429: "limit_exceeded",
}
_OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_OIP_STATUSES: Final = {413: 400, 415: 400, 422: 400, 504: 503}

Body = dict[str, Any]


def native_body(status: int, code: str, message: str, request_id: str) -> Body:
    """`{"error": {"code", "message", "request_id"}}`."""
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def oip_body(status: int, code: str, message: str, request_id: str) -> Body:
    """`{"error": "…"}`, as the Open Inference Protocol v2 asks."""
    return {"error": message}


def openai_body(status: int, code: str, message: str, request_id: str) -> Body:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


_WIRES: Final[tuple[tuple[str, Callable[[int, str, str, str], Body]], ...]] = (
    ("/v2", oip_body),
    ("/v1/", openai_body),
    ("", native_body),
)


def error_body(path: str, status: int, code: str, message: str, request_id: str) -> bytes:
    """The body of an error in the words of the API that `path` belongs to."""
    wire = next(body for prefix, body in _WIRES if path.startswith(prefix))
    return orjson.dumps(wire(status, code, message, request_id))


def wire_status(path: str, status: int) -> int:
    """The status of an error in the API that `path` belongs to: the Open Inference Protocol knows fewer."""
    return _OIP_STATUSES.get(status, status) if path.startswith("/v2") else status


def request_id_of(scope: Any) -> str:
    """The id that the middleware gave to this request."""
    return str(scope.get("state", {}).get("request_id", ""))


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of this app leave in the house's words; FastAPI's own bodies never do."""
    app.add_exception_handler(PlatformError, _platform_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, crashed)


def respond(request: Request, error: PlatformError) -> Response:
    """One error as a response."""
    body = error_body(request.scope["path"], error.status, error.code, error.message, request_id_of(request.scope))
    status = wire_status(request.scope["path"], error.status)
    return Response(body, status, error.headers(), media_type="application/json")


async def _platform_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)
    if error.status >= 500 and error.__cause__ is not None:
        log.warning("request.failed", code=error.code, cause=repr(error.__cause__)[:500])
    return respond(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return respond(request, MalformedBody("The body is not valid JSON."))
    where = " ".join([str(first["loc"][0]), ".".join(str(part) for part in first["loc"][1:])]).strip()
    message = f"{where}: {first['msg'].removeprefix('Value error, ').removesuffix('.')}."
    if first["loc"][0] == "path":
        return respond(request, BadRequest(message))
    return respond(request, Unprocessable(message))


async def http_error(request: Request, error: Exception) -> Response:
    """What starlette and FastAPI refuse by themselves, in the house's words."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, PlatformError):  # FastAPI's word for whatever stopped the body's reading
        return respond(request, error.__cause__)
    if error.status_code == 400 and error.__cause__ is not None:
        return respond(request, MalformedBody("The body cannot be read; is it JSON in UTF-8?"))
    code = _HTTP_CODES.get(error.status_code, "error")
    message = {
        404: "There is nothing at this path.",
        405: f"This path does not take {request.method}.",
    }.get(error.status_code, str(error.detail))
    body = error_body(request.scope["path"], error.status_code, code, message, request_id_of(request.scope))
    return Response(body, error.status_code, error.headers, media_type="application/json")


async def crashed(request: Request, error: Exception) -> Response:
    """What nobody expected. The middleware around all apps gets it as well, and logs it."""
    body = error_body(request.scope["path"], 500, "internal", INTERNAL_MESSAGE, request_id_of(request.scope))
    return Response(body, 500, media_type="application/json")
