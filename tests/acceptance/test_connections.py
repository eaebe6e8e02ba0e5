"""More connections than a process may hold."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from tests.acceptance.answers import refused
from tests.conftest import StartServer
from tests.servers import PLAIN, RunningServer, wait_until

LIMIT = 4
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def test_one_too_many_is_told_and_a_place_that_is_free_is_given(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_SERVER__MAX_CONNECTIONS": str(LIMIT)})
    server.client.close()
    with ExitStack() as stack:
        held = [stack.enter_context(_let_in(server)) for _ in range(LIMIT)]
        for _ in range(20):
            refused(_get(server), 503, "too_many_connections", "try again")
        answer = _get(server)
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        # Who was let in is served on; and one that leaves makes room for another.
        assert all(_ask(connection).startswith(b"HTTP/1.1 200") for connection in held)
        held[0].close()
        wait_until("A free place", lambda: _answers(server))
    assert len(server.log_events("connections.full")) == 1, "a flood must not flood the log"


def test_one_too_many_that_says_nothing_is_closed(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_SERVER__MAX_CONNECTIONS": "1"})
    server.client.close()
    with _let_in(server) as held, ExitStack() as stack:
        silent = [stack.enter_context(_connect(server)) for _ in range(300)]
        ends = [_read_all(connection) for connection in silent]
        assert {end[:12] for end in ends} == {b"HTTP/1.1 503", b""}, "some told, the many just closed"
        assert _ask(held).startswith(b"HTTP/1.1 200")


def test_silent_connections_keep_nothing_of_what_was_refused(start_server: StartServer) -> None:
    server = start_server({})
    body = b" " * 60_000
    head = f"POST /api/v1/inference/none HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    def hold(connections: int, stack: ExitStack) -> int:
        for _ in range(connections):
            caller = stack.enter_context(_connect(server))
            caller.sendall(head.encode() + body)
            assert caller.recv(65536).startswith(b"HTTP/1.1 401")
        return server.rss_bytes()

    with ExitStack() as stack:
        before_bytes = hold(20, stack)
        assert hold(400, stack) - before_bytes < 200 * len(body)


@pytest.mark.parametrize(
    ("begun", "answered"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ", b""),
        # Refused before its body has come, which then nobody waits for any more.
        (b"POST /api/v1/inference/none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"HTTP/1.1 401"),
    ],
    ids=["head", "dropped-body"],
)
def test_bytes_that_trickle_keep_no_connection_open(
    impatient: RunningServer, begun: bytes, answered: bytes
) -> None:
    with _connect(impatient) as caller:
        caller.sendall(begun)
        if answered:
            assert caller.recv(65536).startswith(answered)
        caller.settimeout(0.05)
        wait_until("The close", lambda: _trickle(caller), every_s=0.05)


def _trickle(caller: socket.socket) -> bool:
    """Send another byte; true once the other end is closed."""
    try:
        caller.sendall(b"x")
        return caller.recv(1) == b""
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    variables = {"PULVINAR_SERVER__KEEP_ALIVE_S": "0.5", "PULVINAR_INFERENCE__BODY_TIMEOUT_S": "0.5"}
    with RunningServer(tmp_path_factory.mktemp("impatient"), variables) as server:
        # One that is kept for the next call may be closed by the server at the moment of that call.
        server.client.close()
        limits = httpx.Limits(max_keepalive_connections=0)
        server.client = httpx.Client(base_url=server.client.base_url, timeout=30, limits=limits, **PLAIN)
        yield server


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/v1/internal/auth/login", ""),
        ("/api/v1/inference/none", "X-Access-Token: {token}\r\n"),
        ("/v2/repository/index", "X-Access-Token: {token}\r\n"),
    ],
)
def test_a_body_that_trickles_is_refused_in_time(impatient: RunningServer, path: str, headers: str) -> None:
    token = impatient.token()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    with _connect(impatient) as caller:
        caller.sendall((head + headers.format(token=token) + "\r\n").encode())
        caller.settimeout(0.05)
        said = b""

        def answered() -> bool:
            nonlocal said
            try:
                caller.sendall(b" ")
                said += caller.recv(65536)
            except TimeoutError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True
            return b"}" in said

        wait_until("The refusal", answered, every_s=0.05)
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404")), said
    if b"404" not in said[:16]:
        assert b"did not arrive within 0.5 seconds" in said


def test_ten_thousand_that_say_nothing_hinder_nobody(start_server: StartServer) -> None:
    """As many as the machine lets one process open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 1000)
    server = start_server({})
    try:
        with ExitStack() as stack:
            before_bytes = server.rss_bytes()
            for _ in range(count):
                stack.enter_context(_connect(server))
            assert _get(server).status_code == 200
            wait_until("That all are let in", lambda: _open_files(server) >= count, 30)
            for _ in range(50):
                assert _get(server).status_code == 200
            assert server.rss_bytes() - before_bytes < count * 40_000
        wait_until("That their places are free", lambda: _open_files(server) < count // 10, 30)
        assert _get(server).status_code == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _open_files(server: RunningServer) -> int:
    return int(psutil.Process(server.process.pid).num_fds())


def _connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def _let_in(server: RunningServer) -> socket.socket:
    """A connection with a place, once there is one: that of another is free when the server has seen its end."""

    def connect() -> socket.socket | None:
        connection = _connect(server)
        with suppress(ConnectionError):  # it may be closed before it was asked
            if _ask(connection).startswith(b"HTTP/1.1 200"):
                return connection
        connection.close()
        return None

    return wait_until("A place", connect)


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(GET)
    said = b""
    while not said.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            break
        said += part
    return said


def _read_all(connection: socket.socket) -> bytes:
    said = b""
    try:
        while part := connection.recv(65536):
            said += part
    except ConnectionResetError:
        pass
    return said


def _get(server: RunningServer) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}/health/live", timeout=30, **PLAIN)


def _answers(server: RunningServer) -> bool:
    return _get(server).status_code == 200
