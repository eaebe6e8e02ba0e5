"""What surrounds every request: its id, its log line, a last answer when all else fails, a cap on bodies."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Literal, NamedTuple

import structlog
from structlog.contextvars import bind_contextvars

from app.access_log import AccessLog, Line
from app.answer_headers import Cors, FixedHeaders, Headers
from app.errors import INTERNAL_MESSAGE, error_body, wire_status
from app.tracing import Answer, RequestTrace, Tracer, end_request
from core.errors import BadRequest, Forbidden, ShuttingDown, TooLarge
from core.serving.request import Timing

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

log = structlog.get_logger("pulvinar.requests")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}\Z")
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(1)
_INTERNAL: Final = ("/api/v1/internal/", "/docs/internal/", "/dashboard/", "/login/")
_OWN_RULES: Final = ("/health", "/v2/health/", "/metrics", "/static/")
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
ANSWERED = "answered"
"""Key of the request's state under which an inference call leaves who answered, and its times: an `Answered`."""
STOPPING_MESSAGE = "The server stopped before this request was answered; try again."


class Answered(NamedTuple):
    """Who answered an inference request, where its time went, and how long its model was loaded for it."""

    model: str
    version: int
    timing: Timing
    load_ms: float = 0.0
    at: float = 0.0
    """When the model's answer was there, in seconds of `time.monotonic()`."""

    def to_json(self) -> dict[str, Any]:
        """As a line of the log says it, in milliseconds."""
        waits = {"batch_wait": round(self.timing.batch_wait, 3), "load": round(self.load_ms, 3)}
        return {"model": self.model, "version": self.version, "timing_ms": {**self.timing.to_json(), **waits}}


class RequestContext:
    """Gives each request an id, logs it in one line, and turns a stray exception into an error body."""

    express: Any = None
    """Answers some requests without all this; the server's protocol asks it first (`app.external.express`)."""

    def __init__(
        self,
        app: ASGIApp,
        access_log: AccessLog,
        fixed: FixedHeaders,
        cors: Cors,
        tracer: Tracer | None = None,
    ) -> None:
        self._app = app
        self._access_log = access_log
        self._fixed = fixed
        self._cors = cors
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection, or the server's whole life."""
        if scope["type"] == "http":
            await self._handle(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._handle_stream(scope, receive, send)
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
        path: str = scope["path"]
        cors = self._cors.headers(scope) if api_of(path) == "external" else []
        trace = None if self._tracer is None else self._tracer.enter(scope)
        added = cors if trace is None else [*cors, trace.header]

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = list(message.get("headers", ()))
                message["headers"] = [*own, *self._fixed.beside(own, path, request_id), *added]
            await send(message)

        write_answer = scope.get(ANSWER_NOW)
        if write_answer is not None:

            def answer_now(answered: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
                nonlocal status
                status = answered
                return bool(write_answer(answered, [*headers, *self._fixed.of(request_id), *added], body))

            scope[ANSWER_NOW] = answer_now
        try:
            check_address(scope)
            if cors and self._cors.is_preflight(scope):
                await _answer_preflight(send_with_id, self._cors.preflight(scope), cors)
            else:
                await self._app(scope, receive, send_with_id)
        except Forbidden as error:
            await _answer(send_with_id, scope["path"], error.status, error.code, error.message, request_id)
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
            log_request(self._access_log, scope, request_id, status, started, trace)

    async def _handle_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket; its one line comes at its end, with status 101 or that of its refusal."""
        started = time.perf_counter()
        request_id = choose_request_id(scope["headers"])
        scope["state"]["request_id"] = request_id
        scope["method"] = "WS"
        trace = None if self._tracer is None else self._tracer.enter(scope)
        bind_contextvars(request_id=request_id)
        status = CLIENT_LEFT

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
                own = [pair for pair in message.get("headers", ()) if pair[0] != b"x-request-id"]
                message["headers"] = [*own, *self._fixed.beside(own, scope["path"], request_id)]
            if trace is not None and "headers" in message:
                message["headers"] = [*message["headers"], trace.header]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            log_request(self._access_log, scope, request_id, status, started, trace)


_BODY_TIMEOUT_S = 30.0


class BodyCap:
    """Refuses bodies over a cap, announced or not, and those that trickle for longer than a body may take.

    Paths that count for themselves are left alone.
    """

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
        seen, whole = 0, False
        timeout_s = _body_timeout_s(scope)
        late_at = asyncio.get_running_loop().time() + timeout_s

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:  # what comes now is the client's end, which is waited for as long as the answer takes
                return await receive()
            try:
                async with asyncio.timeout_at(late_at):
                    message = await receive()
            except TimeoutError as error:
                raise BadRequest(f"The body did not arrive within {timeout_s:g} seconds.") from error
            whole = not message.get("more_body")
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


def _body_timeout_s(scope: Scope) -> float:
    platform = scope.get("state", {}).get("platform")
    return _BODY_TIMEOUT_S if platform is None else float(platform.settings.inference.body_timeout_s)


def client_of(scope: Scope) -> str:
    """The address that a request comes from; empty where it has none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def check_address(scope: Scope) -> None:
    """Raise Forbidden where the rules do not let this address use the API of this path."""
    platform = scope.get("state", {}).get("platform")
    api = api_of(scope["path"])
    if platform is not None and api is not None:
        platform.ip_rules.check(api, client_of(scope))


def api_of(path: str) -> Literal["internal", "external"] | None:
    """Whose rules hold for a path; None for what a load balancer asks, and for metrics, which have their own."""
    if path.startswith(_OWN_RULES):
        return None
    return "internal" if f"{path}/".startswith(_INTERNAL) else "external"


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


def log_request(
    access_log: AccessLog,
    scope: Scope,
    request_id: str,
    status: int,
    started: float,
    trace: RequestTrace | None = None,
) -> None:
    """One line about a request, and the end of its span; `started` is of `time.perf_counter`."""
    platform = scope["state"].get("platform")
    if platform is not None and platform.settings is not access_log.settings:  # they were read again
        access_log.configure(platform.settings)
    took_ms = (time.perf_counter() - started) * 1000
    is_slow = took_ms >= access_log.slow_ms and scope["type"] == "http" and api_of(scope["path"]) == "external"
    if access_log.enabled or is_slow:
        ms = round(took_ms * 100) / 100
        address = client_of(scope)
        trace_id = "" if trace is None else trace.id.trace_id
        path = scope["path"]
        line = Line(time.time(), ms, status, scope["method"], path, address, request_id, trace_id=trace_id)
        if access_log.enabled:
            access_log.add(line)
        if is_slow:
            answered: Answered | None = scope["state"].get(ANSWERED)
            access_log.add(line._replace(slow={} if answered is None else answered.to_json()))
    if trace is not None and trace.trace is not None:
        end_request(trace.trace, scope, _traced_answer(scope, request_id, status))


def _traced_answer(scope: Scope, request_id: str, status: int) -> Answer:
    answer = Answer(status, request_id, client_of(scope))
    answered: Answered | None = scope["state"].get(ANSWERED)
    if answered is None:
        return answer
    model, version, timing, _, at = answered
    return answer._replace(model=model, version=version, timing=timing, at=at)


async def _answer(send: Send, path: str, status: int, code: str, message: str, request_id: str) -> None:
    status = wire_status(path, status)
    body = error_body(path, status, code, message, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_preflight(send: Send, headers: Headers, added_later: Headers) -> None:
    headers = [pair for pair in headers if pair not in added_later]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
