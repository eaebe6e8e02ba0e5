"""One HTTP server process: uvicorn with our protocol."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from app.ending import end_soon
from app.lifespan import Place
from app.main import create_app
from app.protocol import GOODBYE_S, Protocol
from app.tls import make_context, renew
from app.websocket import WebSocketProtocol
from core.settings import Settings


class Server(uvicorn.Server):
    """uvicorn's own, for which an orderly stop by a signal is a success: the process ends with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests to stop, and do not raise them once more afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; a connection that was accepted in the last moment is told as well."""
        asyncio.get_running_loop().call_later(GOODBYE_S / 2, self._tell_connections)
        await super().shutdown(sockets)
        # Here and not at the end of the lifespan: an app may also live in a process that goes on, a test's.
        end_soon()

    def _tell_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()


def make_server(settings: Settings, read_settings: Callable[[], Settings] | None = None) -> Server:
    """A server ready to `run`. Raises InvalidSettings where its certificate cannot be used."""
    context = make_context(settings.tls)

    def read_and_renew() -> Settings:
        assert read_settings is not None
        settings = read_settings()
        renew(context, settings.tls)
        return settings

    reads = None if read_settings is None else read_and_renew
    return Server(server_config(settings, read_settings=reads, context=context))


def server_config(
    settings: Settings,
    place: Place | None = None,
    read_settings: Callable[[], Settings] | None = None,
    context: ssl.SSLContext | None = None,
) -> uvicorn.Config:
    """How uvicorn is run: our logs, no proxy headers believed, connections bounded, TLS by `context`."""
    options: dict[str, Any] = {
        "host": settings.server.host,
        "port": settings.server.port,
        "loop": "uvloop",
        "http": Protocol,
        "ws": WebSocketProtocol,
        "ws_ping_interval": None,  # a pong waits behind frames that are not read for want of room
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "limit_concurrency": None,
        "backlog": 2048,
        "timeout_keep_alive": settings.server.keep_alive_s,
        "timeout_graceful_shutdown": max(1, round(settings.server.drain_s)),
    }
    if context is not None:
        options["ssl_context_factory"] = lambda _config, _default: context
    return uvicorn.Config(create_app(settings, place, read_settings), **options)
