"""What surrounds every request: its id, its log line, a last answer when all else fails, a cap on bodies."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from app.access_log import AccessLog, Line
from app.errors import INTERNAL_MESSAGE, error_body, wire_status
from core.errors import ShuttingDown, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

log = structlog.get_logger("pulvinar.requests")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}\Z")
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(1)
_NOSNIFF = (b"x-content-type-options", b"nosniff")
CLIENT_LEFT = 499
"""The status in logs and metrics of a request whose client went away; nobody reads an answer."""
ON_DISCONNECT = "pulvinar.on_disconnect"
"""Scope key under which an endpoint may leave a function to be called when its client goes away."""
DISCONNECTED = "pulvinar.disconnected"
"""Scope key that is set once that function has been called."""
BODY_NOW = "pulvinar.body_now"
"""Scope key of a function that gives the whole body where it has come already, and None where it has not."""
ANSWER_NOW = "pulvinar.answer_now"
"""Scope key of a function that takes a whole answer (status, headers, body) without ASGI's messages.

It adds the Content-Length, and is false where the answer must be sent as messages after all."""
STOPPING_MESSAGE = "The server stopped before this request was answered; try again."


class RequestContext:
    """Gives each request an id, logs it in one line, and turns a stray exception into an error body."""

    express: Any = None
    """Answers some requests without all this; the server's protocol asks it first (`app.external.express`)."""

    def __init__(self, app: ASGIApp, access_log: AccessLog) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection, or the server's whole life."""
        if scope["type"] == "http":
            await self._handle(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "lifespan":
                self._access_log.close()

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = choose_request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        bind_contextvars(request_id=request_id)
        status = 0
        fixed = fixed_headers(request_id)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *fixed]
            await send(message)

        write_answer = scope.get(ANSWER_NOW)
        if write_answer is not None:

            def answer_now(answered: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
                nonlocal status
                status = answered
                return bool(write_answer(answered, [*headers, *fixed], body))

            scope[ANSWER_NOW] = answer_now
        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            if scope.get(DISCONNECTED):
                status = CLIENT_LEFT
            elif status == 0:  # the server stops, and its patience is at an end
                await _answer(send_with_id, scope["path"], 503, ShuttingDown.code, STOPPING_MESSAGE, request_id)
            else:
                raise
        except Exception:
            log.exception("request.crashed", method=scope["method"], path=scope["path"])
            if status == 0:
                await _answer(send_with_id, scope["path"], 500, "internal", INTERNAL_MESSAGE, request_id)
        finally:
            log_request(self._access_log, scope, request_id, status, started)


class BodyCap:
    """Refuses bodies over a cap, announced or not; paths that count for themselves are left alone."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, exempt: Callable[[Scope], bool] = lambda scope: False
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or self._exempt(scope):
            await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise TooLarge(f"The body is larger than {self._max_bytes} bytes.")
            return message

        if content_length(scope) > self._max_bytes:
            request_id = scope["state"]["request_id"]
            message = f"The body is larger than {self._max_bytes} bytes."
            await _answer(send, scope["path"], 413, "too_large", message, request_id)
            return
        await self._app(scope, counted, send)


def content_length(scope: Scope) -> int:
    """The announced length of the body; 0 when there is none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def choose_request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The caller's `X-Request-ID` where it is fit to be logged, or one of our own."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            return value.decode("ascii")
    return f"{_PROCESS}{next(_numbers):08x}"


def fixed_headers(request_id: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that every answer has."""
    return _NOSNIFF, (b"x-request-id", request_id.encode())


def log_request(access_log: AccessLog, scope: Scope, request_id: str, status: int, started: float) -> None:
    """One line about a request; `started` is of `time.perf_counter`."""
    platform = scope["state"].get("platform")
    if platform is not None and platform.settings is not access_log.settings:  # they were read again
        access_log.configure(platform.settings)
    if access_log.enabled:
        client = scope.get("client")
        ms = round((time.perf_counter() - started) * 100_000) / 100
        address = client[0] if client else ""
        access_log.add(Line(time.time(), ms, status, scope["method"], scope["path"], address, request_id))


async def _answer(send: Send, path: str, status: int, code: str, message: str, request_id: str) -> None:
    status = wire_status(path, status)
    body = error_body(path, status, code, message, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
