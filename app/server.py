"""One HTTP server process: uvicorn with our protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from app.lifespan import Place
from app.main import create_app
from app.protocol import GOODBYE_S, Protocol
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

    def _tell_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()


def make_server(settings: Settings, read_settings: Callable[[], Settings] | None = None) -> Server:
    """A server ready to `run`."""
    return Server(server_config(settings, read_settings=read_settings))


def server_config(
    settings: Settings, place: Place | None = None, read_settings: Callable[[], Settings] | None = None
) -> uvicorn.Config:
    """How uvicorn is run: our logs, no proxy headers believed, connections bounded."""
    options: dict[str, Any] = {
        "host": settings.server.host,
        "port": settings.server.port,
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
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
    return uvicorn.Config(create_app(settings, place, read_settings), **options)
