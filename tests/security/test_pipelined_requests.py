"""Requests that are sent ahead of their answers: bounded in memory, answered in their order, none of them lost."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.acceptance import onnx_models
from tests.servers import RunningServer

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
SHORTEST = b"GET / HTTP/1.1\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("pipelined")) as server:
        server.upload("slow", onnx_models.counting())
        server.deploy("slow")
        yield server


def _connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def _read_until_closed(caller: socket.socket) -> bytes:
    read = b""
    while chunk := caller.recv(1 << 20):
        read += chunk
    return read


def _infer(token: str, rounds: int) -> bytes:
    body = b'{"inputs": {"n": [[%d]]}}' % rounds
    head = (
        "POST /api/v1/inference/slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"X-Access-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def test_a_caller_who_sends_ahead_without_end_costs_no_memory(server: RunningServer) -> None:
    """18 bytes ask for a page: what is kept of a request that waits must not be a hundred times as much."""
    sent, block = 0, SHORTEST * 4096
    before = server.rss_bytes()
    with _connect(server) as caller:
        reading = threading.Thread(target=_drop_all, args=(caller,))
        reading.start()
        caller.settimeout(0.5)
        ends = time.monotonic() + 8
        while sent < 4 << 20 and time.monotonic() < ends:
            try:
                sent += caller.send(block[sent % len(SHORTEST) :])
            except TimeoutError:  # it is let wait, as it should be
                continue
        grown = server.rss_bytes() - before
        caller.shutdown(socket.SHUT_RDWR)
        reading.join()
    assert sent > 1 << 20  # it was an attack
    assert grown < 64 << 20
    assert server.client.get("/health/live").status_code == 200


def _drop_all(caller: socket.socket) -> None:
    try:
        while caller.recv(1 << 20):
            pass
    except (OSError, TimeoutError):
        pass


def test_each_request_that_was_sent_ahead_is_answered_in_its_order(server: RunningServer) -> None:
    token = server.token()
    ahead = [_infer(token, number) for number in range(1, 150)]  # more than is read at once
    last = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with _connect(server) as caller:
        sending = threading.Thread(target=caller.sendall, args=(b"".join(ahead) + last,))
        sending.start()
        answers = _read_until_closed(caller).split(b"HTTP/1.1 ")[1:]
        sending.join()
    assert {answer[:3] for answer in answers} == {b"200"}
    assert len(answers) == len(ahead) + 1
    said = [answer.partition(b"\r\n\r\n")[2] for answer in answers[:-1]]
    outputs = [body.partition(b'"outputs":')[2].partition(b',"timing_ms"')[0] for body in said]
    assert len(set(outputs)) == len(ahead)
    assert b"live" in answers[-1]


def test_a_body_behind_a_request_under_way_comes_through(server: RunningServer) -> None:
    """It is longer than what is read ahead, so reading must go on for it once its turn has come."""
    token, body = server.token(), b'{"inputs": {"n": [[2]]}' + b" " * (1 << 20) + b"}"
    head = (
        "POST /api/v1/inference/slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"X-Access-Token: {token}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with _connect(server) as caller:
        caller.sendall(_infer(token, 2000) + LIVE + head.encode() + body)
        answers = _read_until_closed(caller).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 3


@pytest.mark.parametrize("broken", [b"\0\0\0\0\r\n\r\n", LIVE[:-4] + b"\r\nContent-Length: x\r\n\r\n"])
def test_what_cannot_be_read_is_refused_in_its_turn(server: RunningServer, broken: bytes) -> None:
    """The 400 in the place of another request's answer would tell its caller a thing that is not so."""
    token = server.token()
    with _connect(server) as caller:
        caller.sendall(_infer(token, 2000) + LIVE + broken + LIVE)
        answers = _read_until_closed(caller).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]
