"""One HTTP server process: uvicorn with our protocol."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.server import HANDLED_SIGNALS

from app.ending import MARGIN_S, end_within, run_to_end
from app.lifespan import Place
from app.main import create_app
from app.protocol import GOODBYE_S, Protocol
from app.tls import make_context, renew
from app.websocket import WebSocketProtocol
from core.settings import Settings

LOOK_S: Final = 0.1


class Server(uvicorn.Server):
    """uvicorn's own, in a process that is its alone; a stop by a signal is a success, and has an end."""

    def __init__(self, config: uvicorn.Config, stop_s: float) -> None:
        """`stop_s` is how long a stop may take before the process is ended by force."""
        super().__init__(config)
        self._stop_s = stop_s

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a stop; the process is to end by `end_now`."""
        run_to_end(self.serve(sockets), uvloop.new_event_loop)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests to stop, to the last moment: afterwards the process ends."""
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin a stop, which has an end."""
        if not self.should_exit:
            end_within(self._stop_s, self._loop)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; a connection that was accepted in the last moment is told as well.

        A second SIGINT cuts it short.
        """
        # Not `stopping`: what comes in the last moment over a connection that is still open is answered.
        platform = self.lifespan.state.get("platform")
        if platform is not None:
            platform.leaving = True
        asyncio.get_running_loop().call_later(GOODBYE_S / 2, self._tell_connections)
        closing = asyncio.create_task(super().shutdown(sockets), name="shutdown")
        while not closing.done() and not self.force_exit:
            await asyncio.wait([closing], timeout=LOOK_S)
        if closing.done():
            await closing

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
    return Server(server_config(settings, read_settings=reads, context=context), stop_s(settings))


def stop_s(settings: Settings) -> float:
    """How long a stop may take in all."""
    return settings.server.drain_s + MARGIN_S


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
