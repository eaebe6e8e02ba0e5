from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.acceptance import onnx_models
from tests.conftest import Demo, StartServer
from tests.servers import RunningServer, wait_until


@pytest.fixture(scope="session")
def tensors(demo: Demo) -> Demo:
    """The same server, with the models `scale` (times 2) and `ratio` (x / x) in service, and `idle` in none."""
    for name, model in (("scale", onnx_models.scale()), ("ratio", onnx_models.ratio())):
        demo.server.upload(name, model)
        demo.server.deploy(name)
    demo.server.upload("idle", onnx_models.scale(3))
    return demo


DRAIN_S = 20.0
"""So long what is under way may take that took a second or two when nothing else ran."""


@dataclass(frozen=True)
class Slow:
    """A server with a model, `slow`, that takes about as many seconds as it is asked to."""

    server: RunningServer
    token: str
    rounds_per_s: float
    threads: ThreadPoolExecutor

    def call(self, seconds: float, token: str | None = None) -> httpx.Response:
        """Keep the model busy for so long."""
        rounds = max(1, round(seconds * self.rounds_per_s))
        return self.server.infer("slow", token or self.token, json={"inputs": {"n": [[rounds]]}})

    def begin(self, seconds: float, token: str | None = None) -> Future[httpx.Response]:
        """The same, in a thread."""
        return self.threads.submit(self.call, seconds, token)

    def begin_two(self, seconds: float, token: str | None = None) -> list[Future[httpx.Response]]:
        """One request that runs and one that waits for it, both certainly under way. Needs `max_batch` 1."""
        first = self.begin(seconds, token)
        self.wait_running()
        calls = [first, self.begin(0.01, token)]
        wait_until(
            "A request that waits", lambda: self.server.observed("slow")["queue"]["depth"] == 1, every_s=0.005
        )
        return calls

    def wait_running(self) -> None:
        """Wait until the engine is at work."""
        wait_until("A request that runs", self._runs, every_s=0.005)

    def _runs(self) -> bool:
        return (
            re.search(r'pulvinar_slots_busy{model="slow",.*} 1\n', self.server.client.get("/metrics").text)
            is not None
        )

    def deploy(self, **options: Any) -> None:
        """Serve it with these options, one request at a time."""
        self.server.deploy("slow", max_batch=1, max_instances=1, **options)


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    drain = {"PULVINAR_SERVER__DRAIN_S": str(DRAIN_S)}
    with RunningServer(tmp_path_factory.mktemp("slow"), drain) as server, _slow_on(server) as slow:
        yield slow


@pytest.fixture
def slow(slow_server: Slow) -> Slow:
    """A server with the slow model in service, one request at a time, and nothing under way."""
    slow_server.deploy()
    return slow_server


@pytest.fixture
def own_slow(start_server: StartServer, request: pytest.FixtureRequest) -> Iterator[Slow]:
    """The same on a server of the test's own, which may be stopped; its drain may be said as a parameter."""
    drain_s: float = getattr(request, "param", DRAIN_S)
    with _slow_on(start_server({"PULVINAR_SERVER__DRAIN_S": str(drain_s)})) as slow:
        yield slow


@contextmanager
def _slow_on(server: RunningServer) -> Iterator[Slow]:
    server.upload("slow", onnx_models.counting())
    server.deploy("slow", max_batch=1, max_instances=1)
    token = server.token()
    with ThreadPoolExecutor(16) as threads:
        yield Slow(server, token, _rounds_per_s(server, token), threads)


def _rounds_per_s(server: RunningServer, token: str) -> float:
    """As of the fastest of a few runs: what others slow down here would be over too soon where they do not."""
    rounds, took_s = 400, []
    for _ in range(5):
        before = time.perf_counter()
        answer = server.infer("slow", token, json={"inputs": {"n": [[rounds]]}})
        took_s.append(time.perf_counter() - before)
        assert answer.status_code == 200, answer.text
    return rounds / min(took_s)
