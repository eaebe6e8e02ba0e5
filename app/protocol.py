"""HTTP/1.1 on one connection: uvicorn's own protocol, made shorter where every request passes.

- A whole answer can be given in one call and is one write; ASGI's way takes two of each.
- A body that came with its head is there at once, without an event and a timeout to wait for it.
- One keep-alive timer a connection looks now and then, in the place of one set and cancelled for every request.
- A lost connection tells whoever is at work for it, so that no second task has to wait for the client's end.
- Where the other end is a trusted proxy, each request's caller is who that proxy says.
- A connection more than the process may hold is refused.
- Requests that come ahead of their turn wait as the bytes that they are, but for a few; what cannot be read is
  refused in its turn, and so is a head that does not end.
- An upgrade to what is not spoken here is read as if it were not asked for, body and all.
- Fields behind a body are no headers.
- At a stop, a silent connection has a moment yet: a request may be on its way, and would be lost.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.answer_headers import lines_of
from app.external.express import Express
from app.external.streaming import STREAM_PREFIX
from app.middleware import ANSWER_NOW, BODY_NOW, DISCONNECTED, ON_DISCONNECT
from app.proxies import caller, comes_from_proxy
from app.refusal import Refusal
from app.state import Platform

GOODBYE_S: Final = 0.2
READ_AT_ONCE_BYTES: Final = 16 * 1024
"""A waiting request takes some kilobytes and its head perhaps 18 bytes, so no more than these are read ahead."""
MAX_HEAD_BYTES: Final = 64 * 1024
_STREAM: Final = STREAM_PREFIX.encode()
_OK: Final = STATUS_LINE[200]
_CLOSE: Final = b"connection: close\r\n"


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    def body_now(self) -> bytes | None:
        """The whole body where it has come already; None where it must be waited for."""
        if self.more_body or self.waiting_for_100_continue or self.disconnected:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    def answer_now(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write a whole answer; false where it must go the long way. Raises RuntimeError as `write_answer`."""
        if self.response_started or self.flow.write_paused or self.scope["method"] == "HEAD":
            return False
        self.write_answer(status, headers, body)
        return True

    def write_answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer, its Content-Length added. Raises RuntimeError for a header of two lines."""
        lines = lines_of(headers)
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
            raise RuntimeError("A header of the answer holds a line break.")
        self.write_lines(status, lines, body)

    def write_lines(self, status: int, lines: bytes, body: bytes) -> None:
        """As `write_answer`, of headers that are written already, and known to be one line each."""
        if self.disconnected:
            return
        self.waiting_for_100_continue = False
        self.response_started = True
        begin, end = _OK if status == 200 else STATUS_LINE[status], b"" if self.keep_alive else _CLOSE
        self.transport.write(b"%b%bcontent-length: %d\r\n%b\r\n%b" % (begin, lines, len(body), end, body))
        self.response_complete = True
        self._let_go()
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _let_go(self) -> None:
        """Of the request's bytes and of who was at work for it: a silent connection remembers its last cycle.

        With them goes what leads back from the scope to here, so that all of it is freed at once and its memory
        used again while it is warm: garbage that only the collector finds took a twentieth of all the time.
        """
        if self.body:
            self.body = bytearray()
        scope: Any = self.scope
        for name in (ON_DISCONNECT, BODY_NOW, ANSWER_NOW):
            scope.pop(name, None)


class _Flow(FlowControl):
    """Reads nothing while it is held, whoever waits for more: what is asked for has come already."""

    is_held = False

    def hold(self) -> None:
        self.is_held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class _PastHead:
    """Whom a parser tells that is given a head once more, for the sake of its body: all but that head."""

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection
        self._is_past = False
        self.on_body, self.on_message_complete = connection.on_body, connection.on_message_complete

    def on_message_begin(self) -> None:
        if self._is_past:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._is_past:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_past:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_past:
            self._connection.on_headers_complete()
        self._is_past = True


class Protocol(HttpToolsProtocol):
    """One connection."""

    flow: _Flow
    _unread = b""
    """What has come, and is parsed when no request waits for its turn."""
    _unheard_bytes = 0
    """What has come since the last head that was whole, or the last piece of a body."""
    _refusal: tuple[int, str] | None = None
    """Why nothing after the requests under way can be read."""
    _upgrades = False
    _ignores_upgrade = False
    _deferred: Cycle | None = None
    """A request that may be taken by the express way, once it is whole."""
    _idle_since: float | None = None
    _keep_alive_timer: asyncio.TimerHandle | None = None
    _leaving = False
    _is_lost = False
    _behind_proxy = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._express: Express | None = getattr(self.app, "express", None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; one too many is refused."""
        platform: Platform = self.app_state["platform"]
        max_connections = platform.settings.server.max_connections
        if len(self.connections) < max_connections:
            super().connection_made(transport)
            self.flow = _Flow(transport)
            self._behind_proxy = comes_from_proxy(self.client, platform.settings)
            self._be_idle()
        else:
            Refusal(transport, platform.settings)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: tell whoever is at work for it."""
        self._is_lost = True
        cycle = self.cycle
        super().connection_lost(exc)
        self.pipeline.clear()
        self._unread = b""
        if self._keep_alive_timer is not None:
            self._keep_alive_timer.cancel()
        if cycle is not None and not cycle.response_complete:
            scope: Any = cycle.scope
            on_disconnect = scope.get(ON_DISCONNECT)
            if on_disconnect is not None:
                scope[DISCONNECTED] = True
                on_disconnect()

    def shutdown(self) -> None:
        """The server stops: end after the answer under way, or the one to a request that comes in a moment."""
        self._leaving = True
        if self.scheme == "https":
            self.loop.call_later(2 * GOODBYE_S, self._cut_off)
        if self._is_silent():
            self.loop.call_later(GOODBYE_S, self._say_goodbye)
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def _should_upgrade(self) -> bool:
        return self._upgrades

    def _asks_for_stream(self) -> bool:
        """Only streams are WebSockets, and only where no answer is still to come over this connection."""
        is_get = self.url.startswith(_STREAM) and self.parser.get_method() == b"GET"
        return is_get and self._is_silent() and super()._should_upgrade()

    def _is_silent(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _say_goodbye(self) -> None:
        if self._is_silent():
            self.transport.close()

    def _cut_off(self) -> None:
        """Under TLS a close waits for the peer's word, which one that is silent does not give."""
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self._is_lost:
            self.loop.call_later(GOODBYE_S, self._cut_off)

    def data_received(self, data: bytes) -> None:
        """Bytes of one request or more."""
        if len(data) <= READ_AT_ONCE_BYTES and not self.pipeline and not self._unread:
            self._parse(data)
        else:
            self._unread += data
            self._read_on()

    def _read_on(self) -> None:
        """Parse what has come, until a request must wait for the one before it."""
        data, self._unread, at = memoryview(self._unread), b"", 0
        while at < len(data) and not (self.pipeline or self._upgrades or self.transport.is_closing()):
            self._parse(data[at : at + READ_AT_ONCE_BYTES])
            at += READ_AT_ONCE_BYTES
        if not self._upgrades:  # frames are none before the handshake is answered
            self._unread = bytes(data[at:])
        if self._unread or self.pipeline:
            self.flow.hold()

    def _parse(self, data: bytes | memoryview) -> None:
        if self._refusal is not None:
            return
        self._unheard_bytes += len(data)
        self._feed(data)
        if self._unheard_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "The head of the request is too large.")
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            express = self._express
            if express is None or deferred.more_body or not express.take(deferred, deferred.body, self.tasks):
                self._start_asgi_task(deferred, self.app)

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._upgrades:
                    self.handle_websocket_upgrade()
                    return
                data = self._framing() + data[upgrade.args[0] :]
                self._ignores_upgrade = False
                self.parser = httptools.HttpRequestParser(_PastHead(self))
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            except httptools.HttpParserError:
                self._refuse(400, "Invalid HTTP request received.")
                return
            else:
                return

    def _framing(self) -> bytes:
        """A head that says of its body what that of the present request does, and asks for no upgrade."""
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b\r\n" % field for field in self.scope["headers"] if field[0] in framing]
        return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines)

    def _refuse(self, status: int, message: str) -> None:
        """Refuse what cannot be read, once the requests before it are answered."""
        cycle = self.cycle
        if cycle is not None and cycle.more_body and self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # it is its own body that cannot be read
        elif self._is_silent() or cycle.more_body:
            self._write_refusal(status, message)
            return
        self._refusal = status, message

    def _write_refusal(self, status: int, message: str) -> None:
        self.logger.warning(message)
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(message)
        self.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], head, _CLOSE, message.encode()))
        self.transport.close()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unheard_bytes = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The end of a request; where an upgrade is ignored, its body is still to be read."""
        cycle = self.cycle
        if not self._ignores_upgrade and not self._upgrades and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_headers_complete(self) -> None:
        """Start the application on a request, or let it wait until the one before it is answered."""
        # Not where bytes arrive: those of a body that nobody waits for any more keep no connection open.
        self._idle_since = None
        self._unheard_bytes = 0
        parser = self.parser
        if parser.should_upgrade():
            self._upgrades = self._asks_for_stream()
            self._ignores_upgrade = not self._upgrades
            if self._upgrades:
                super().on_headers_complete()
                return
        self._complete_scope()
        self.headers = []  # what comes behind the body goes there, and to nobody
        before = self.cycle
        self.cycle = cycle = Cycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue,
            parser.should_keep_alive() and not self._leaving,
            self.on_response_complete,
        )
        scope: Any = self.scope
        if before is None or before.response_complete:
            if self._express is None or self.flow.write_paused or not self._express.wants(scope):
                self._start_asgi_task(cycle, self.app)
            else:
                self._deferred = cycle
        else:
            self.flow.hold()
            self.pipeline.appendleft((cycle, self.app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """The long way: what runs there reaches the cycle by its scope alone."""
        cycle.scope[BODY_NOW], cycle.scope[ANSWER_NOW] = cycle.body_now, cycle.answer_now
        super()._start_asgi_task(cycle, app)

    def _complete_scope(self) -> None:
        scope, url = self.scope, self.url
        scope["method"] = self.parser.get_method().decode("ascii")
        version = self.parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        query = b""
        if b"?" in url or b"#" in url or not url.startswith(b"/"):
            parsed = httptools.parse_url(url)
            url, query = parsed.path, parsed.query or b""
        path = url.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url
        scope["query_string"] = query
        if self._behind_proxy:
            platform: Platform = self.app_state["platform"]
            scope["client"] = caller(self.client, self.headers, platform.settings)

    def on_response_complete(self) -> None:
        """Begin the next request that waits, or be idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.is_held or self._refusal is not None:
            self._go_on_in_turn()
        else:
            self.flow.resume_reading()
            self._be_idle()

    def _go_on_in_turn(self) -> None:
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._write_refusal(*self._refusal)
            return
        else:
            self._be_idle()
        if not self.pipeline:
            self.flow.is_held = False
            self._read_on()
            self.flow.resume_reading()

    def _be_idle(self) -> None:
        """From now on, so long is waited for the head of a request."""
        self._idle_since = self.loop.time()
        if self._keep_alive_timer is None:
            self._keep_alive_timer = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._keep_alive_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return  # at work; the end of it looks again
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self._keep_alive_timer = self.loop.call_later(left_s, self._look_whether_idle)
