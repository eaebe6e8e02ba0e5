"""Models that leave memory and come back when they are called: budget, idling, pinning, deadlines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.acceptance import onnx_models
from tests.processes import hosts, wait_gone
from tests.servers import PLAIN, RunningServer, wait_until

BUDGET = "150MiB"
X = {"inputs": {"x": [[1, 2, 3, 4]]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("memory")
    with RunningServer(folder, {"PULVINAR_INFERENCE__MEMORY_BUDGET": BUDGET}, whole=True) as server:
        for name in ("a", "b"):
            server.upload(name, onnx_models.scale())
        yield server


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    return server.token()


def idle(server: RunningServer, name: str, generation: int = 0) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        observed = server.observed(name)
        return observed if observed["state"] == "idle" and observed["generation"] >= generation else None

    return wait_until(f"That {name} is idle", look)


def deploy_idle(server: RunningServer, name: str, **options: Any) -> dict[str, Any]:
    """Serve it, and answer what is observed once it has left: that it serves may be over before somebody looks."""
    server.deploy(name, **options)
    return idle(server, name, soon_idle(server, name, **options))


def soon_idle(server: RunningServer, name: str, **options: Any) -> int:
    """Let what is in service leave after a second without a call; answers the generation."""
    body = {"version": 1, "idle_unload_s": 1, **options}
    generation: int = server.ok("PUT", f"/models/{name}/deployment", json=body)["generation"]
    return generation


def metric(server: RunningServer, name: str, *labels: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith((f"{name} ", f"{name}{{")) and all(label in line for label in labels)
    )


def swaps(server: RunningServer, name: str) -> float:
    return metric(server, "pulvinar_swaps_total", f'model="{name}"')


def test_an_idle_process_ends_and_many_callers_start_one(server: RunningServer, token: str) -> None:
    observed = server.deploy("a", isolation="process")
    (version,) = observed["versions"]
    assert version["memory_bytes"] == observed["memory_bytes"] > 20 << 20, "a whole process"
    assert metric(server, "pulvinar_model_memory_bytes", 'model="a"') == observed["memory_bytes"]
    assert metric(server, "pulvinar_memory_budget_bytes") == 150 << 20
    before = hosts(server)
    observed = idle(server, "a", soon_idle(server, "a", isolation="process"))
    wait_gone(before)
    assert observed["reason"] == "No request for 1 s."
    assert (observed["memory_bytes"], observed["versions"][0]["state"]) == (0, "idle")
    _still_callable(server, token)
    begun = swaps(server, "a")
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: server.infer("a", token, json=X), range(24)))
    assert len(hosts(server)) == 1
    assert [answer.status_code for answer in answers] == [200] * 24
    assert swaps(server, "a") == begun + 1, "one load for all"
    assert metric(server, "pulvinar_stage_seconds_count", 'model="a"', 'stage="load"') >= 1


def _still_callable(server: RunningServer, token: str) -> None:
    """An idle model is one that is ready, is listed, and tells about itself without a load."""
    headers = {"X-Access-Token": token}
    assert server.client.get("/health/ready").json() == {"status": "ready", "not_ready": {}}
    assert server.client.get("/v2/models/a/ready", headers=headers).status_code == 200
    assert server.client.get("/v2/models/a/versions/1/ready", headers=headers).status_code == 200
    assert server.client.get("/v2/models/a/versions/9/ready", headers=headers).status_code == 404
    tensors = server.client.get("/v2/models/a", headers=headers).json()
    assert [one["name"] for one in tensors["inputs"]] == ["x"]
    assert {"name": "a", "version": "1", "state": "READY", "reason": "idle: loaded when it is called"} in (
        server.client.post("/v2/repository/index", headers=headers).json()
    )
    listed = server.client.get("/api/v1/models", headers=headers).json()["models"]
    assert [(one["name"], one["state"]) for one in listed] == [("a", "idle")]
    assert server.observed("a")["state"] == "idle", "no question has loaded it"


def test_the_open_inference_protocol_waits_too_and_a_deadline_passes_meanwhile(
    server: RunningServer, token: str
) -> None:
    deploy_idle(server, "b", isolation="process", timeout_ms=40)
    loads = swaps(server, "b")
    late = server.infer("b", token, json=X)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until("The load that nobody waits for", lambda: swaps(server, "b") == loads + 1)
    deploy_idle(server, "b", isolation="process")
    _call_with_a_timeout_shorter_than_the_load(server, token)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    answer = server.client.post("/v2/models/b/infer", json={"inputs": [tensor]}, headers={"X-Access-Token": token})
    assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]


def _call_with_a_timeout_shorter_than_the_load(server: RunningServer, token: str) -> None:
    """As JSON, and with binary tensors of which most has not come yet."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [20_000, 4]}
    call = {"inputs": [{**tensor, "parameters": {"binary_data_size": 320_000}}], "parameters": {"timeout": 20_000}}
    header = json.dumps(call).encode()
    bodies: list[tuple[bytes, dict[str, str]]] = [
        (header + bytes(320_000), {"Inference-Header-Content-Length": str(len(header))}),
        (json.dumps({"inputs": [{**tensor, "shape": [1, 4], "data": [1] * 4}], **_TIMEOUT}).encode(), {}),
    ]
    for body, headers in bodies:
        loads = swaps(server, "b")
        late = server.client.post("/v2/models/b/infer", content=body, headers={**headers, "X-Access-Token": token})
        assert (late.status_code, late.json()) == (
            503,
            {"error": "The deadline passed while the model was being loaded."},
        )
        wait_until("The load that nobody waits for", lambda loads=loads: swaps(server, "b") == loads + 1)
        idle(server, "b")


_TIMEOUT = {"parameters": {"timeout": 20_000}}


def test_threads_of_the_server_share_one_heap(server: RunningServer, token: str) -> None:
    """glibc's arena.c: a further heap is 64 MiB of addresses at a multiple of that, the first part in use."""

    def mapping(line: str) -> tuple[int, int, str]:
        where, how, *_ = line.split()
        begin, _, end = where.partition("-")
        return int(begin, 16), int(end, 16), how

    deploy_idle(server, "b")  # a thread has loaded it, and another one closed it
    assert server.infer("b", token, json=X).status_code == 200
    found = [mapping(line) for line in server.maps()]
    assert not [
        hex(begin)
        for (begin, end, how), (then, last, rest) in pairwise(found)
        if begin % (64 << 20) == 0 and (how, rest) == ("rw-p", "---p") and end == then and last - begin == 64 << 20
    ]


def test_a_pinned_model_stays_others_make_room_and_too_much_is_refused(server: RunningServer, token: str) -> None:
    server.deploy("a", isolation="process", pinned=True)
    server.deploy("b", isolation="process")
    for name in ("c", "d", "e", "f", "g"):  # how many it takes depends on what processes happen to share
        server.upload(name, onnx_models.scale())
        server.deploy(name, isolation="process")
        if server.observed("b")["state"] == "idle":
            break
    assert idle(server, "b")["reason"] == "Unloaded to make room for others."
    assert server.observed("a")["state"] == "serving"
    assert server.infer("b", token, json=X).json()["outputs"][0]["data"] == [2, 4, 6, 8]
    assert metric(server, "pulvinar_model_memory_bytes") <= 150 << 20
    server.upload("vast", onnx_models.heavy(151))
    observed = server.deploy("vast", state="failed", isolation="process")
    assert "memory budget" in observed["reason"]
    refused = server.infer("vast", token, json=X)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert "budget" in refused.json()["error"]["message"]
    server.ok("DELETE", "/models/vast/deployment")
    refused_pair = server.api(
        "PUT", "/models/a/deployment", json={"version": 1, "pinned": True, "idle_unload_s": 9}
    )
    assert refused_pair.status_code == 422


def test_workers_ask_the_control_process_for_what_is_idle(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("memory-workers")
    with RunningServer(folder, {"PULVINAR_DATABASE__POLL_S": "0.15"}, flags=("--workers", "2")) as server:
        server.upload("a", onnx_models.scale())
        secret = server.token()
        server.deploy("a")
        before = hosts(server)
        generation = soon_idle(server, "a", idle_unload_s=1.5)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            _call_all(server, secret)
        assert hosts(server) == before, "what the workers use stays"
        idle(server, "a", generation)
        wait_gone(before)
        assert server.client.get("/health/ready").status_code == 200
        _call_all(server, secret)
        assert len(hosts(server)) == 1
        assert metric(server, "pulvinar_model_memory_bytes", 'model="a"') > 0


def _call_all(server: RunningServer, token: str) -> None:
    """Over so many connections that each worker has some."""
    url, headers = f"http://127.0.0.1:{server.port}/api/v1/inference/a", {"X-Access-Token": token}
    with ThreadPoolExecutor(12) as threads:
        answers = list(
            threads.map(lambda _: httpx.post(url, json=X, headers=headers, timeout=20, **PLAIN), range(24))
        )
    assert {(answer.status_code, str(answer.json().get("outputs", answer.text))) for answer in answers} == {
        (200, str(answers[0].json().get("outputs")))
    }
