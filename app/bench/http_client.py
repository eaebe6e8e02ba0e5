"""A client of the native inference call: HTTP/1.1 over connections that stay open, no more than that."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import httptools
import orjson

from app.bench.calls import Call
from core.errors import PlatformError, Unavailable, Unprocessable

CONNECT_S, ANSWER_S = 5.0, 60.0
_KEPT_BYTES = 64 * 1024


class Refused(PlatformError):
    """The server answered with an error; the message is the server's own, with the status in front."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class HttpCall:
    """Where to connect, and requests as they go over the wire."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    wires: Sequence[bytes] = field(repr=False)


def http_call(url: str, token: str, model: str, version: int | None, calls: Sequence[Call]) -> HttpCall:
    """The calls as requests to the server at `url`. Raises Unprocessable for what is not such a URL."""
    parts, port = _split(url)
    if not token or not token.isascii() or not token.isprintable():
        raise Unprocessable("The token must be one line of plain characters, as `token create` printed it.")
    query = f"?version={version}" if version is not None else ""
    path = f"{parts.path.rstrip('/')}/api/v1/inference/{quote(model, safe='')}{query}"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nX-Access-Token: {token}\r\n"
        "Accept: application/json\r\n"
    )
    wires = [
        f"{head}Content-Type: {call.media_type}\r\nContent-Length: {len(call.body)}\r\n\r\n".encode() + call.body
        for call in calls
    ]
    return HttpCall(str(parts.hostname), port, _tls(parts), wires)


async def reach(url: str) -> None:
    """Raises Unavailable where nobody listens at `url`, Unprocessable for what is no such URL."""
    parts, port = _split(url)
    connection = Connection(HttpCall(str(parts.hostname), port, _tls(parts), ()))
    await connection.open()
    connection.close()


async def is_ready(url: str) -> bool:
    """Whether the server at `url` serves all that it should. Raises Unavailable where nobody answers."""
    parts, port = _split(url)
    wire = f"GET /health/ready HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    connection = Connection(HttpCall(str(parts.hostname), port, None, [wire]))
    try:
        await connection.ask(wire)
    except Refused:
        return False
    finally:
        connection.close()
    return True


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not printable:
        raise Unprocessable("The server's URL must look like http://127.0.0.1:8000.")
    return parts, port


def _tls(parts: SplitResult) -> ssl.SSLContext | None:
    return ssl.create_default_context() if parts.scheme == "https" else None


class Connection(asyncio.Protocol):
    """One connection, opened again where the server closed it; one call at a time."""

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._answer: asyncio.Future[None] | None = None
        self._body = b""

    async def open(self) -> None:
        """Connect where that is needed. Raises Unavailable."""
        if self._transport is not None and not self._transport.is_closing():
            return
        call = self._call
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, call.host, call.port, ssl=call.tls
                )
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"The server at {call.host}:{call.port} cannot be reached.") from error

    async def ask(self, wire: bytes) -> None:
        """Send a request and wait for its answer. Raises Refused, or Unavailable where none comes."""
        await self.open()
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        try:
            async with asyncio.timeout(ANSWER_S):
                await answer
        except TimeoutError as error:
            self.close()
            raise Unavailable(f"The server did not answer within {ANSWER_S:g} s.") from error
        except asyncio.CancelledError:
            self.close()
            raise
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        if status != 200:
            raise Refused(f"The server answered {status}: {_sentence(self._body)}")

    def close(self) -> None:
        """Let go of the socket."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # What the transport and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self._fail("The server closed the connection before it had answered.")

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("What answers there does not speak HTTP.")
            self.close()

    def on_body(self, data: bytes) -> None:
        """Keep the beginning, which says what went wrong where something did."""
        if len(self._body) < _KEPT_BYTES:
            self._body += data

    def on_message_complete(self) -> None:
        """The answer is whole, unless more follows a 1xx."""
        if self._answer is not None and not self._answer.done() and self._parser.get_status_code() >= 200:
            self._answer.set_result(None)

    def _fail(self, message: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(message))


def _sentence(body: bytes) -> str:
    """The message of a native error body, or the beginning of whatever else there is."""
    with suppress(orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return str(orjson.loads(body)["error"]["message"])[:300]
    text = " ".join(body.decode("utf-8", "replace").split())
    return "".join(c for c in text if c.isprintable())[:200] or "nothing more."
