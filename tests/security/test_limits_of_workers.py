"""Whoever spreads calls over all workers gets no more than the limit says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse

import httpx
import pytest

from tests.acceptance import onnx_models
from tests.processes import wait_gone, workers
from tests.servers import INTERNAL, PLAIN, RunningServer, wait_until

WORKERS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    variables = {"PULVINAR_ACCESS__LOGIN_RATE": "7/hour"}
    with RunningServer(tmp_path_factory.mktemp("limits"), variables, flags=("--workers", str(WORKERS))) as server:
        yield server


def _get(server: RunningServer, token: str, path: str = "/api/v1/models", calls: int = 1) -> list[HTTPResponse]:
    """So many answers over one new connection, whichever worker it reaches, once that knows the token."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    answers: list[HTTPResponse] = []
    while len(answers) < calls:
        connection.request("GET", path, headers={"X-Access-Token": token})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 401:
            answers.append(answer)
    connection.close()
    return answers


def test_calls_spread_over_the_workers_get_exactly_the_rate(server: RunningServer) -> None:
    token = server.token(models=["inside"], rate=["1000/day", "100000/30 day"])

    def hammer(_: int) -> list[HTTPResponse]:
        return [answer for _ in range(13) for answer in _get(server, token, calls=8)]

    with ThreadPoolExecutor(12) as threads:
        answers = [answer for some in threads.map(hammer, range(12)) for answer in some]
    assert Counter(answer.status for answer in answers) == {200: 1000, 429: 12 * 104 - 1000}
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"1000"}
    left = sorted(int(answer.headers["x-ratelimit-remaining"]) for answer in answers if answer.status == 200)
    assert left == list(range(1000))
    refusal = next(answer for answer in answers if answer.status == 429)
    assert 1 <= int(refusal.headers["retry-after"]) <= 2 * 86_400
    assert refusal.headers["x-ratelimit-remaining"] == "0"


def test_places_are_counted_over_the_workers_and_those_of_a_dead_one_come_back(server: RunningServer) -> None:
    server.upload("slow", onnx_models.counting())
    server.deploy("slow")
    token = server.token(max_concurrency=1, models=["slow"])
    url = f"http://127.0.0.1:{server.port}/api/v1/inference/slow"

    def call(rounds: int) -> int:
        body = {"inputs": {"n": [[rounds]]}}
        try:
            return httpx.post(url, json=body, headers={"X-Access-Token": token}, timeout=60, **PLAIN).status_code
        except httpx.TransportError:
            return 0

    def hold() -> int:
        while (status := call(20_000)) in (401, 429):  # a worker that does not know the token, a short call
            pass
        return status

    wait_until("That the token is known", lambda: call(1) == 200)
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(hold)
        wait_until("That the place is taken", lambda: all(call(1) == 429 for _ in range(3 * WORKERS)))
        dead = workers(server)
        for worker in dead:
            worker.kill()
        wait_gone(dead)
        assert long.result() == 0
    wait_until("That the place is free", lambda: call(1) == 200)
    server.wait_ready()


def test_guesses_spread_over_the_workers_are_throttled(server: RunningServer) -> None:
    def guess(_: int) -> int:
        return httpx.post(
            f"http://127.0.0.1:{server.port}{INTERNAL}/auth/login",
            json={"username": "admin", "password": "guess"},
            timeout=30,
            **PLAIN,
        ).status_code

    with ThreadPoolExecutor(4) as threads:
        statuses = Counter(threads.map(guess, range(20)))
    signed_in = 1  # by the fixture
    assert statuses == {401: 7 - signed_in, 429: 13 + signed_in}
