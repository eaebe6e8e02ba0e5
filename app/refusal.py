"""A connection more than this process holds: told so, and closed."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar, Final

import structlog

from app.answer_headers import FixedHeaders
from app.errors import error_body
from app.middleware import choose_request_id
from core.errors import TooManyConnections
from core.settings import Settings

log = structlog.get_logger(__name__)

LINGER_S: Final = 1.0
"""For so long it is waited for the request. Bytes that are unread at the close would reset the connection, and the
client might never see the answer."""
MOST: Final = 256
"""So many may linger at once; more are closed without a word."""
TELL_EVERY_S: Final = 10.0
RETRY_AFTER_S: Final = 1


class Refusal(asyncio.Protocol):
    """Takes a connection over from the protocol that cannot have it. Belongs to one event loop."""

    _lingering: ClassVar[set[Refusal]] = set()
    _told_at: ClassVar[float] = float("-inf")

    def __init__(self, transport: asyncio.Transport, settings: Settings) -> None:
        self._transport = transport
        transport.set_protocol(self)
        self._tell(settings.server.max_connections)
        if len(self._lingering) >= MOST:
            self._timer = asyncio.get_running_loop().call_soon(transport.abort)
            return
        self._lingering.add(self)
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, transport.close)
        transport.write(_answer(settings))

    def data_received(self, data: bytes) -> None:
        """The request has come; its answer is on the way already."""
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._timer.cancel()
        self._lingering.discard(self)

    def _tell(self, max_connections: int) -> None:
        now = time.monotonic()
        if now - Refusal._told_at >= TELL_EVERY_S:
            Refusal._told_at = now
            log.warning("connections.full", max_connections=max_connections)


def _answer(settings: Settings) -> bytes:
    request_id = choose_request_id([])
    error = TooManyConnections("The server holds as many connections as it may; try again shortly.")
    body = error_body("", error.status, error.code, error.message, request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % RETRY_AFTER_S),
        (b"connection", b"close"),
        *FixedHeaders(settings).of(request_id),
    ]
    lines = [b"HTTP/1.1 503 Service Unavailable", *(b"%b: %b" % header for header in headers)]
    return b"\r\n".join([*lines, b"", body])
