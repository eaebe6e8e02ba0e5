"""The dashboards and rules of `deploy/`, run by a real Prometheus against a server that is called."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from websockets.sync.client import connect

from core.control.machine import gpu_stats
from tests.acceptance import onnx_models
from tests.dashboards import DEPLOY, RULES, Asked, of_boards, of_rules, series_of
from tests.servers import RunningServer, free_port, wait_until

CONFIG = DEPLOY / "prometheus/prometheus.yml"
PROMTOOL = shutil.which("promtool") or ""
PROMETHEUS = shutil.which("prometheus") or ""
pytestmark = pytest.mark.skipif(
    not (PROMTOOL and PROMETHEUS), reason="Prometheus is not installed; on Debian: apt-get install prometheus"
)
# What somebody who looks at a dashboard would choose.
CHOICES = {"$job": "pulvinar", "$model": ".*", "$window": "5s"}


@pytest.mark.parametrize(
    ("what", "path"),
    [("check config", CONFIG), ("check rules", RULES), ("test rules", RULES.with_name("rules.test.yml"))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_promtool_is_content(what: str, path: Path) -> None:
    done = subprocess.run([PROMTOOL, *what.split(), str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    tested = yaml.safe_load(RULES.with_name("rules.test.yml").read_text())["tests"]
    fires, silent = set(), set()
    for one in tested:
        for look in one["alert_rule_test"]:
            (fires if look.get("exp_alerts") else silent).add(look["alertname"])
    alerts = {asked.place.removeprefix("alert ") for asked in of_rules()}
    assert fires == alerts
    # Of queues that are full, the callers' errors beside them are the silent ones.
    assert alerts - silent <= {"PulvinarQueueFull"}


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that is called in every way that a dashboard shows, until the tests are over."""
    variables = {
        "PULVINAR_INFERENCE__MEMORY_BUDGET": "4GiB",
        # Nobody listens there: what becomes of spans is counted all the same.
        "PULVINAR_TRACING__ENABLED": "true",
        "PULVINAR_TRACING__ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "PULVINAR_TRACING__FLUSH_S": "1",
    }
    with RunningServer(tmp_path_factory.mktemp("called"), variables) as server:
        server.expected_in_log += ["Failed to export", "Transient error"]
        server.upload("m", onnx_models.scale())
        server.upload("m", onnx_models.scale(), version=True)
        traffic = [{"version": 1}, {"version": 2, "weight": 1, "mode": "shadow"}]
        accepted = server.ok("PUT", "/models/m/deployment", json={"traffic": traffic, "cache": True})
        server.wait_generation("m", accepted["generation"])
        token = server.token()
        with _calls(server, token):
            yield server


@contextmanager
def _calls(server: RunningServer, token: str) -> Iterator[None]:
    over = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}/api/v1/inference", trust_env=False) as client:
            for number in itertools.count():
                if over.wait(0.02):
                    return
                # What was asked before, what was not, and what cannot be answered.
                for x in ([1, 2, 3, 4], [number, 2, 3, 4], [1]):
                    client.post("/m", json={"inputs": {"x": [x]}}, headers={"X-Access-Token": token})

    def stream() -> None:
        headers = {"X-Access-Token": token}
        url = f"ws://127.0.0.1:{server.port}/api/v1/stream/m"
        while not over.is_set():
            with connect(url, additional_headers=headers, compression=None, proxy=None) as connection:
                for _ in range(10):
                    connection.send(json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}}))
                    connection.recv(timeout=20)
                over.wait(0.1)

    threads = [threading.Thread(target=call), threading.Thread(target=stream)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def prometheus(called: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with the configuration of `deploy/`, but for the address of the server and the pace."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{called.port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
                wait_until("Prometheus' start", lambda: _is_ready(client))
                yield client
        finally:
            process.terminate()
            process.wait(20)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _values(prometheus: httpx.Client, asked: Asked) -> list[float]:
    expression = asked.expression
    for variable, choice in CHOICES.items():
        expression = expression.replace(variable, choice)
    answer: dict[str, Any] = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{asked}: {answer}"
    return [float(one["value"][1]) for one in answer["data"]["result"]]


def test_every_expression_of_the_dashboards_has_data(prometheus: httpx.Client) -> None:
    """All at once: each may need some scrapes more."""
    here = [asked for asked in of_boards() if gpu_stats() or "pulvinar_gpu_" not in asked.expression]
    assert len(here) >= 30
    deadline = time.monotonic() + 40
    missing = here
    while missing:
        missing = [asked for asked in missing if all(math.isnan(value) for value in _values(prometheus, asked))]
        assert time.monotonic() < deadline, "without data: " + "\n".join(map(str, missing))
        time.sleep(0.3 if missing else 0)


def test_every_alert_is_computed_from_what_there_is(prometheus: httpx.Client) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else []

    rules = wait_until("A look at the rules", evaluated)
    assert {f"alert {rule['name']}" for rule in rules} == {asked.place for asked in of_rules()}
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    # A server that answers its callers is nobody's alarm; how full this machine is, is not known.
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing <= {"PulvinarDiskFull", "PulvinarMachineMemory"}
    names = {series.name for asked in of_rules() for series in series_of(asked.expression)}
    known = set(prometheus.get("/api/v1/label/__name__/values").json()["data"])
    assert names <= known
