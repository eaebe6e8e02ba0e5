"""Kept answers through the front door: fewer runs, the same answers, and counts of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance import onnx_models
from tests.conftest import Demo
from tests.servers import RunningServer

SLOW = 300


@pytest.fixture(scope="module")
def kept(demo: Demo) -> Iterator[RunningServer]:
    """`kept` keeps its answers, and has room for one request."""
    server = demo.server
    server.upload("kept", onnx_models.counting())
    server.upload("kept", onnx_models.counting(), version=True)
    server.deploy("kept", 1, cache=True)
    yield server
    accepted = server.ok("DELETE", "/models/kept/deployment")
    server.wait_generation("kept", accepted["generation"], "stopped")


def runs(server: RunningServer, version: int = 1) -> int:
    """Items that the engine has run."""
    begin = f'pulvinar_batch_items_sum{{model="kept",version="{version}"}}'
    lines = server.client.get("/metrics").text.splitlines()
    return next((int(float(line.split()[-1])) for line in lines if line.startswith(begin)), 0)


def test_what_was_answered_is_not_run_again(kept: RunningServer, demo: Demo) -> None:
    before = runs(kept)
    first, again = [kept.infer("kept", demo.token, json={"inputs": {"n": [[7]]}}).json() for _ in range(2)]
    assert "cached" not in first
    assert again["cached"] is True
    assert again["outputs"] == first["outputs"]
    assert again["request_id"] != first["request_id"]
    assert again["timing_ms"]["infer"] == 0
    binary = kept.client.post(  # the other API knows the same answer in its own words, and asks for it anew
        "/v2/models/kept/infer",
        headers={"X-Access-Token": demo.token},
        json={"inputs": [{"name": "n", "datatype": "INT64", "shape": [1, 1], "data": [7]}]},
    )
    assert binary.json()["outputs"][0]["data"] == [7]
    assert runs(kept) - before == 2
    metrics = kept.client.get("/metrics").text
    for outcome in ("hit", "miss"):
        assert f'pulvinar_cache_requests_total{{model="kept",version="1",outcome="{outcome}"}}' in metrics
    held = next(line for line in metrics.splitlines() if line.startswith("pulvinar_cache_bytes "))
    assert int(held.split()[1]) > 0
    statistics = kept.client.get("/v2/models/kept/stats", headers={"X-Access-Token": demo.token}).json()
    assert statistics["model_stats"][0]["inference_stats"]["cache_hit"]["count"] >= 1


def test_many_who_ask_at_once_share_one_run(kept: RunningServer, demo: Demo) -> None:
    before = runs(kept)
    with ThreadPoolExecutor(8) as pool:
        ask = lambda _: kept.infer("kept", demo.token, json={"inputs": {"n": [[SLOW]]}})  # noqa: E731
        answers = list(pool.map(ask, range(8)))
    assert all(answer.json()["outputs"][0]["data"] == [SLOW] for answer in answers)
    assert runs(kept) - before == 1


def test_another_version_answers_for_itself_and_the_choice_is_shown(kept: RunningServer, demo: Demo) -> None:
    body = {"inputs": {"n": [[9]]}}
    assert kept.infer("kept", demo.token, json=body).json()["version"] == 1
    kept.deploy("kept", 2, cache=True)
    said = kept.infer("kept", demo.token, json=body).json()
    assert said["version"] == 2
    assert "cached" not in said
    assert kept.ok("GET", "/models/kept/deployment")["desired"]["cache"] is True
    kept.deploy("kept", 2, cache=False)
    assert not any("cached" in kept.infer("kept", demo.token, json=body).json() for _ in range(2))
    kept.deploy("kept", 1, cache=True)
