"""Heads that do not end, that ask for other protocols, and fields that come too late to be headers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.acceptance import onnx_models
from tests.servers import RunningServer

LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAA\r\n"
BODY = b'{"inputs": {"x": [[1, 2, 3, 4]]}}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("heads")) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        yield server


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    return server.token()


def _connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def _read_until_closed(caller: socket.socket) -> bytes:
    read = b""
    with suppress(ConnectionResetError):
        while chunk := caller.recv(1 << 20):
            read += chunk
    return read


def _statuses(answers: bytes) -> list[bytes]:
    return [answer[:3] for answer in answers.split(b"HTTP/1.1 ")[1:]]


def _call(token: str, *fields: str) -> bytes:
    lines = ["POST /api/v1/inference/scale HTTP/1.1", "Host: x", "Content-Type: application/json", *fields]
    if token:
        lines.append(f"X-Access-Token: {token}")
    return "\r\n".join([*lines, "", ""]).encode()


ENDLESS = {
    "many fields": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a:b\r\n"),
    "one field": (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"aaaaa"),
    "a path": (b"GET /", b"aaaaa"),
    "fields behind a body": (
        b"POST /api/v1/internal/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"a:b\r\n",
    ),
    "the extension of a chunk": (
        b"POST /api/v1/internal/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"aaaaa",
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_head_without_end_is_given_up(server: RunningServer, kind: str) -> None:
    begun, more = ENDLESS[kind]
    before, sent = server.rss_bytes(), 0
    with _connect(server) as caller:
        caller.sendall(begun)
        with suppress(ConnectionError):
            while sent < 32 << 20:
                caller.sendall(more * 2000)
                sent += len(more) * 2000
    assert sent < 16 << 20, "nobody stopped it"
    assert server.rss_bytes() - before < 32 << 20


def test_a_head_that_is_too_large_is_told(server: RunningServer) -> None:
    with _connect(server) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 11_000)
        assert _statuses(_read_until_closed(caller)) == [b"431"]


def test_a_head_of_many_fields_is_read(server: RunningServer) -> None:
    with _connect(server) as caller:
        caller.sendall(b"GET /health/live HTTP/1.1\r\nConnection: close\r\n" + b"a: b\r\n" * 8000 + b"\r\n")
        assert _statuses(_read_until_closed(caller)) == [b"200"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_body_behind_an_upgrade_that_is_not_spoken_is_no_request(server: RunningServer, at_once: bool) -> None:
    """One request goes in, so one answer comes out: a proxy would hand the second one to somebody else."""
    smuggled = b"GET /health/live HTTP/1.1\r\nHost: smuggled\r\n\r\n"
    head = _call("", f"Content-Length: {len(smuggled)}", H2C.rstrip())
    with _connect(server) as caller:
        if at_once:
            caller.sendall(head + smuggled + LAST)
        else:
            caller.sendall(head)
            assert caller.recv(1 << 16).startswith(b"HTTP/1.1 401")
            caller.sendall(smuggled + LAST)
        statuses = _statuses(_read_until_closed(caller))
    assert statuses == ([b"401", b"200"] if at_once else [b"200"])


@pytest.mark.parametrize("upgrade", [H2C.rstrip(), "Connection: Upgrade\r\nUpgrade: websocket"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_call_that_offers_an_upgrade_is_answered_as_any_other(
    server: RunningServer, token: str, upgrade: str, chunked: bool
) -> None:
    """Some clients offer HTTP/2 with each request of theirs."""
    if chunked:
        head = _call(token, "Transfer-Encoding: chunked", upgrade)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    else:
        head, body = _call(token, f"Content-Length: {len(BODY)}", upgrade), BODY
    with _connect(server) as caller:
        caller.sendall((head + body) * 3 + head)
        caller.sendall(body + LAST)
        answers = _read_until_closed(caller)
    assert _statuses(answers) == [b"200"] * 5
    assert answers.count(b'"outputs"') == 4


def test_fields_behind_a_body_are_no_headers(server: RunningServer, token: str) -> None:
    """What stands before us and looks at headers has let the body pass by then."""
    late = f"X-Access-Token: {token}\r\nX-Request-ID: late\r\n".encode()
    chunks = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(BODY), BODY, late)
    with _connect(server) as caller:
        caller.sendall(_call("", "Transfer-Encoding: chunked") + chunks + LAST)
        answers = _read_until_closed(caller)
    assert _statuses(answers) == [b"401", b"200"]
    assert b"late" not in answers


HANDSHAKE = (
    "GET /api/v1/stream/scale HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize("more", ["a: b\r\n" * 300, "Content-Length: 5\r\n", f"X: {'y' * 10_000}\r\n"])
def test_a_handshake_that_cannot_be_read_is_not_waited_for(server: RunningServer, more: str) -> None:
    with _connect(server) as caller:
        caller.sendall((HANDSHAKE + more + "\r\n").encode())
        assert _statuses(_read_until_closed(caller)) == [b"400"]


def test_a_handshake_waits_for_the_answers_before_it(server: RunningServer, token: str) -> None:
    call = _call(token, f"Content-Length: {len(BODY)}") + BODY
    shake = f"{HANDSHAKE}X-Access-Token: {token}\r\n\r\n".encode()
    with _connect(server) as caller:
        caller.sendall(call + shake + LAST)
        answers = _read_until_closed(caller)
    assert _statuses(answers) == [b"200", b"426", b"200"]
