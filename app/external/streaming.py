"""`WS /api/v1/stream/{model}`: the door of a stream, its handshake and its end. Plain ASGI, as `inference`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import structlog

from app.errors import INTERNAL_MESSAGE
from app.external.door import allow, allow_model, concurrency, recognise, secret_of
from app.external.inference import error_answer
from app.external.stream_listener import listens
from app.external.stream_options import StreamOptions, options_from_query
from app.external.stream_session import GOING_AWAY, Ending, PeerGone, Session, SlowReader
from app.middleware import DISCONNECTED, ON_DISCONNECT, check_address
from app.state import Platform
from app.websocket import ABORT, ON_STOP
from core.access.records import TokenRecord
from core.access.tokens import PREFIX as TOKEN_BEGINS
from core.errors import BadRequest, PlatformError, ShuttingDown, TooManyConnections, Unauthenticated

log = structlog.get_logger("pulvinar.requests")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STREAM_PREFIX: Final = "/api/v1/stream/"
SUBPROTOCOL: Final = "pulvinar.v1"
"""What is agreed on where the caller offers it; a browser must, to have its token taken from beside it."""
CRASHED: Final = 1011
TOO_SLOW: Final = 1008
LEFT: Final = 1006
"""Only counted, as the code before it: who has left, or does not read, gets no close frame."""
STOPPING: Final = Ending(GOING_AWAY, "The server is stopping.")
LAST_WORD_S: Final = 0.5
MAX_REASON_BYTES: Final = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, and two are the code."""


class UpgradeRequired(PlatformError):
    """The path is for WebSockets alone."""

    status, code = 426, "upgrade_required"

    def headers(self) -> dict[str, str]:
        """RFC 9110, section 15.5.22."""
        return {"Upgrade": "websocket", "Connection": "Upgrade"}


class StreamEndpoint:
    """Streams, as an ASGI application. Without an upgrade, all that it answers is an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; nothing is raised to the server."""
        platform: Platform = scope["state"]["platform"]
        name: str = scope["path"][len(STREAM_PREFIX) :]
        try:
            check_address(scope)
            secret = stream_secret(scope)
            record = _admit(platform, scope, secret, name)
            if scope["type"] != "websocket":
                raise UpgradeRequired("This path is for WebSockets: ask for an upgrade.")
            options = options_from_query(
                scope["query_string"], max_in_flight=platform.settings.streams.max_in_flight
            )
            _check_room(platform)
            _check_target(platform, name, options)
            with concurrency(platform, record):
                await _Stream(platform, scope, receive, send, name, secret, options).run()
        except PlatformError as error:
            await _refuse(scope, send, platform, name, error)


def stream_secret(scope: Scope) -> bytes:
    """The token in a header, or offered as a subprotocol, which is all that a browser can set.

    Raises Unauthenticated.
    """
    try:
        return secret_of(scope["headers"])
    except Unauthenticated:
        for offered in scope.get("subprotocols", ()):
            if offered.startswith(TOKEN_BEGINS):
                return bytes(offered.encode("latin-1", "replace"))
        raise


def _admit(platform: Platform, scope: Scope, secret: bytes, name: str) -> TokenRecord:
    """The caller's token, asked for anew with each frame. Raises Unauthenticated, Forbidden or ModelNotFound."""
    check_address(scope)
    record = recognise(platform, scope, secret)
    allow(record, "stream")
    allow_model(record, name)
    return record


def _check_room(platform: Platform) -> None:
    if platform.stopping:
        raise ShuttingDown("The server is stopping; try again.", retry_after_s=1)
    if platform.stream_counts.open >= platform.settings.streams.max_streams:
        raise TooManyConnections("The server holds as many streams as it may; try again later.", retry_after_s=5)


def _check_target(platform: Platform, name: str, options: StreamOptions) -> None:
    live = platform.catalogue.callable_targets(name)
    found = [target for target in live if options.version in (None, target.version)]
    if not found:
        raise platform.catalogue.why_not(name, options.version)
    if options.mode == "newest" and any(map(listens, found)):
        raise BadRequest("This model listens to all that is said: the mode `newest` would leave pieces out.")


class _Stream:
    """One stream, from its acceptance to its close frame; also its wire."""

    def __init__(
        self,
        platform: Platform,
        scope: Scope,
        receive: Receive,
        send: Send,
        name: str,
        secret: bytes,
        options: StreamOptions,
    ) -> None:
        self._platform, self._scope, self._name = platform, scope, name
        self._receive, self._send = receive, send
        self._request_id: str = scope["state"]["request_id"]
        self._session = Session(
            self, platform, name, lambda: _admit(platform, scope, secret, name), options, self._request_id
        )

    async def run(self) -> None:
        """Accept, stream, close."""
        task = asyncio.current_task()
        assert task is not None
        counts = self._platform.stream_counts
        code = CRASHED
        counts.opened(self._name)
        try:
            await self._accept()
            self._scope[ON_DISCONNECT] = task.cancel
            self._scope[ON_STOP] = lambda: self._session.stop(STOPPING)
            ending = await self._session.run()
            code = ending.code
            await self._close(ending)
        except PeerGone:
            code = LEFT
        except asyncio.CancelledError:
            if self._scope.get(DISCONNECTED):
                code = LEFT
            else:  # the server's patience is at an end
                code = GOING_AWAY
                await self._close(STOPPING, LAST_WORD_S)
        except SlowReader:
            code = TOO_SLOW
            self._abort()
        except Exception:
            log.exception("stream.crashed", path=self._scope["path"])
            await self._close(Ending(CRASHED, INTERNAL_MESSAGE))
        finally:
            self._scope.pop(ON_DISCONNECT, None)
            self._scope.pop(ON_STOP, None)
            counts.closed(self._name, code)

    async def receive(self) -> bytes | str | None:
        """See Wire."""
        message = await self._receive()
        while message["type"] == "websocket.connect":
            message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return None
        data: bytes | None = message.get("bytes")
        text: str | None = message.get("text")
        return data if data is not None else text

    async def send(self, body: bytes) -> None:
        """See Wire."""
        await self._write({"type": "websocket.send", "text": body.decode()})

    async def _accept(self) -> None:
        offered = self._scope.get("subprotocols", ())
        headers = [(b"x-request-id", self._request_id.encode())]
        chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
        await self._write({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})

    async def _close(self, ending: Ending, timeout_s: float | None = None) -> None:
        reason = ending.reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore")
        try:
            await self._write({"type": "websocket.close", "code": ending.code, "reason": reason}, timeout_s)
        except (PeerGone, SlowReader):
            self._abort()

    async def _write(self, message: MutableMapping[str, Any], timeout_s: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout_s or self._platform.settings.streams.slow_reader_s):
                await self._send(message)
        except TimeoutError as error:
            raise SlowReader from error
        except OSError as error:  # the server's word for a connection that is gone
            raise PeerGone from error

    def _abort(self) -> None:
        abort = self._scope.get(ABORT)
        if abort is not None:
            abort()


async def _refuse(scope: Scope, send: Send, platform: Platform, name: str, error: PlatformError) -> None:
    """Answer the handshake with an error in the API's words."""
    request_id = scope["state"]["request_id"]
    status, headers, body = error_answer(platform, scope["path"], name, 0, request_id, error)
    if scope["type"] == "websocket":
        headers = [*headers, (b"x-request-id", request_id.encode())]
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    length = (b"content-length", str(len(body)).encode())
    try:
        await send({"type": f"{kind}.start", "status": status, "headers": [*headers, length]})
        await send({"type": f"{kind}.body", "body": body})
    except OSError:
        return
