"""WebSocket (RFC 6455) on one connection: uvicorn's own protocol, bounded where a peer could make it hold memory.

- The largest message is the platform's setting, and no message comes in more pieces than a sender has reason for.
- Pongs are not queued for a peer that does not read.
- No compression: frames of media are compressed already, and the work would be done on the event loop.
- A stop, or a lost connection, tells whoever is at work for it.
"""

from __future__ import annotations

import logging
import socket
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from app.middleware import DISCONNECTED, ON_DISCONNECT
from app.proxies import caller, comes_from_proxy
from app.state import Platform

ABORT: Final = "pulvinar.abort"
"""Scope key of a function that ends the connection at once, unsent bytes and all."""
ON_STOP: Final = "pulvinar.on_stop"
"""Scope key under which an application may leave a function to be called when the server stops."""
CLOSE_S: Final = 2.0
"""For so long it is waited for the peer's half of the closing handshake."""
UNREAD_BYTES: Final = 256 * 1024
"""What the kernel holds of frames that are not read: more of them would only be older when their turn comes."""
MAX_PIECES: Final = 4096
"""Of one message: the bytes are capped by themselves, empty pieces are not."""
_UNREADABLE: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
# The library's own lines would show URLs with their queries; the access log has one line for each stream.
_quiet: Final = logging.getLogger("pulvinar.websocket")
_quiet.setLevel(logging.WARNING)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from its handshake on."""

    scope: Any

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        platform: Platform = app_state["platform"]
        self.scope = {}
        self.logger = _quiet
        self.close_timeout = CLOSE_S
        self.conn = ServerProtocol(max_size=platform.settings.streams.max_frame_bytes, logger=_quiet)

    def data_received(self, data: bytes) -> None:
        """Bytes of frames; first of all the handshake, which comes whole and is not waited for once more."""
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(_UNREADABLE)
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Start the application; it runs from the loop's next turn on."""
        super().handle_connect(event)
        if self.scope:
            self.scope[ABORT] = self.transport.abort
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
            settings = self.app_state["platform"].settings
            if comes_from_proxy(self.client, settings):
                self.scope["client"] = caller(self.client, self.scope["headers"], settings)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: tell whoever is at work for it."""
        super().connection_lost(exc)
        on_disconnect = self.scope.get(ON_DISCONNECT)
        if on_disconnect is not None:
            self.scope[DISCONNECTED] = True
            on_disconnect()

    async def send(self, message: Any) -> None:
        """See ASGI. A handshake that was answered with an error is complete, too."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def shutdown(self) -> None:
        """The server stops: the application ends the stream, with what is under way answered."""
        on_stop = self.scope.get(ON_STOP)
        if on_stop is None or self.close_sent:
            super().shutdown()
        else:
            on_stop()

    def handle_cont(self, event: Frame) -> None:
        """One more piece of a message."""
        if self.close_sent:
            return
        if len(self.frames) >= MAX_PIECES:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many pieces")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer, unless what was written before is unread."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))
