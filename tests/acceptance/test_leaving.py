"""Clients that leave without a word, at each moment of a request, and the others, who must not notice."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance import onnx_models
from tests.acceptance.callers import call_once
from tests.servers import RunningServer, wait_until

COLUMNS = 500_000
ISOLATIONS = pytest.mark.parametrize("isolation", ["thread", "process"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("leaving")) as server:
        server.upload("wide", onnx_models.wide(COLUMNS))
        server.upload("slow", onnx_models.counting())
        yield server


class Client:
    """One request over a socket that can be cut at any moment."""

    def __init__(self, server: RunningServer, token: str, model: str, body: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that a large answer has to wait
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", server.port))
        head = (
            f"POST /api/v1/inference/{model} HTTP/1.1\r\nHost: localhost\r\nX-Access-Token: {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall((head + body).encode())

    def read_some(self) -> bytes:
        """The beginning of the answer."""
        return self._socket.recv(64)

    def leave(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@ISOLATIONS
def test_while_the_answer_is_written(server: RunningServer, isolation: str) -> None:
    server.deploy("wide", isolation=isolation)
    token = server.token(max_concurrency=1)
    body = '{"inputs": {"x": [[3]]}}'
    for _ in range(5):
        client = Client(server, token, "wide", body)
        assert client.read_some().startswith(b"HTTP/1.1 200 ")
        client.leave()
    status, answer = call_once(server, token, model="wide", body=body.encode())
    assert status == 200, answer
    assert answer["outputs"][0]["data"] == [3.0] * COLUMNS
    gone = server.ok("DELETE", "/models/wide/deployment")
    server.wait_generation("wide", gone["generation"], "stopped")


@ISOLATIONS
def test_while_its_batch_runs(server: RunningServer, isolation: str) -> None:
    server.deploy("slow", isolation=isolation, max_batch=2, max_delay_ms=5000)
    token = server.token(max_concurrency=2)
    rounds = 3000
    body = json.dumps({"inputs": {"n": [[rounds]]}})
    left_before = _left(server)
    with ThreadPoolExecutor(1) as threads:
        leaving = Client(server, token, "slow", body)
        staying = threads.submit(call_once, server, token, model="slow", body=body.encode())
        wait_until("The run", lambda: _metric(server, "pulvinar_slots_busy") == 1, every_s=0.005)
        assert not staying.done()
        leaving.leave()
        wait_until("The leaving", lambda: _left(server) == left_before + 1, every_s=0.005)
        assert not staying.done(), "the batch ended before the leaving could be seen"
        status, answer = staying.result()
    assert status == 200, answer
    assert answer["outputs"][0]["data"] == [rounds]
    assert server.observed("slow")["batch_sizes"] == {"2": 1}
    gone = server.ok("DELETE", "/models/slow/deployment")
    server.wait_generation("slow", gone["generation"], "stopped")


def _left(server: RunningServer) -> float:
    return _metric(server, "pulvinar_requests_total", "client_left")


def _metric(server: RunningServer, name: str, label: str = "") -> float:
    """The sum over the series of the slow model."""
    lines = server.client.get("/metrics").text.splitlines()
    mine = [line for line in lines if line.startswith(name + '{model="slow"') and label in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in mine)
