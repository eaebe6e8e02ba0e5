"""Traces of a real server, as a collector receives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from websockets.sync.client import connect

from tests.acceptance import onnx_models
from tests.acceptance.pictures import CAT_JPEG
from tests.collector import INTERNAL, SERVER, Collector, Span, collecting
from tests.servers import PLAIN, RunningServer, demo_package, wait_until

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STEPS = {"read", "queue", "infer", "write"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as opened:
        yield opened


def _settings(collector: Collector) -> dict[str, str]:
    return {
        "PULVINAR_TRACING__ENABLED": "true",
        "PULVINAR_TRACING__ENDPOINT": collector.endpoint,
        "PULVINAR_TRACING__SERVICE_NAME": "models",
    }


@pytest.fixture(scope="module")
def server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("traced"), _settings(collector)) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale", max_batch=4, max_delay_ms=1000)
        server.upload("classifier", demo_package())
        server.deploy("classifier", isolation="process")
        for name, isolation in (("touchy", "thread"), ("touchy-apart", "process")):
            server.upload(name, onnx_models.touchy(2.0))
            server.deploy(name, isolation=isolation)
        server.ok("POST", "/models/activate", json={"model": "scale"})
        yield server


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    return server.token()


def _call(server: RunningServer, token: str, request_id: str, **headers: str) -> httpx.Response:
    body = {"inputs": {"x": [[1.0, 2.0, 3.0, 4.0]]}}
    return server.infer("scale", token, json=body, headers={"X-Request-ID": request_id, **headers})


def test_a_request_has_a_span_and_one_for_each_stage(
    server: RunningServer, token: str, collector: Collector
) -> None:
    answer = _call(server, token, "native-1")
    assert answer.status_code == 200, answer.text
    span = collector.request("native-1")
    assert span.name == "POST /api/v1/inference/{model}"
    assert (span.kind, span.parent, span.failed) == (SERVER, "", False)
    assert answer.headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/v1/inference/{model}",
        "http.response.status_code": 200,
        "url.path": "/api/v1/inference/scale",
        "client.address": "127.0.0.1",
        "pulvinar.request_id": "native-1",
        "pulvinar.model": "scale",
        "pulvinar.version": 1,
    }
    assert span.resource["service.name"] == "models"
    stages = collector.inside(span)
    assert stages.keys() >= STEPS
    for stage in stages.values():
        assert stage.kind == INTERNAL
        assert span.start <= stage.start <= stage.end <= span.end
    assert stages["queue"].end == stages["infer"].start
    assert stages["infer"].attributes == {"pulvinar.model": "scale", "pulvinar.version": 1}


def test_a_batch_is_linked_to_its_requests(server: RunningServer, token: str, collector: Collector) -> None:
    names = [f"together-{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda name: _call(server, token, name), names))
    assert [answer.status_code for answer in answers] == [200] * 4
    requests = [collector.request(name) for name in names]
    runs = {collector.inside(request)["infer"].links[0] for request in requests}
    assert len(runs) < 4
    linked: list[tuple[str, str]] = []
    for trace_id, span_id in runs:
        (batch,) = collector.wait(lambda one, wanted=span_id: one.span_id == wanted)  # type: ignore[misc]
        assert (batch.name, batch.trace_id, batch.parent) == ("batch", trace_id, "")
        assert batch.attributes["pulvinar.batch.requests"] == len(batch.links)
        linked += batch.links
    assert sorted(linked) == sorted((request.trace_id, request.span_id) for request in requests)


def test_a_callers_trace_is_gone_on_with_and_a_wrong_one_is_not(
    server: RunningServer, token: str, collector: Collector
) -> None:
    answer = _call(server, token, "given", traceparent=f"00-{TRACE_ID}-{SPAN_ID}-01")
    assert re.fullmatch(rf"00-{TRACE_ID}-[0-9a-f]{{16}}-01", answer.headers["traceparent"])
    span = collector.request("given")
    assert (span.trace_id, span.parent) == (TRACE_ID, SPAN_ID)
    unwanted = _call(server, token, "unwanted", traceparent=f"00-{TRACE_ID}-{SPAN_ID}-00")
    assert unwanted.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert unwanted.headers["traceparent"].endswith("-00")
    wrong = _call(server, token, "wrong", traceparent=f"00-{'0' * 32}-{SPAN_ID}-01")
    assert wrong.status_code == 200
    span = collector.request("wrong")
    assert (span.parent, TRACE_ID in wrong.headers["traceparent"]) == ("", False)
    assert not collector.spans(lambda one: one.attributes.get("pulvinar.request_id") == "unwanted")


def test_a_photo_to_an_engine_host_has_all_stages(server: RunningServer, token: str, collector: Collector) -> None:
    headers = {"X-Request-ID": "photo", "Content-Type": "image/jpeg"}
    assert server.infer("classifier", token, content=CAT_JPEG, headers=headers).status_code == 200
    span = collector.request("photo")
    stages = collector.inside(span)
    assert {"read", "preprocess", "queue", "infer", "postprocess", "write"} <= stages.keys()
    order = ["read", "preprocess", "queue", "infer", "postprocess", "write"]
    assert [stages[name].start for name in order] == sorted(stages[name].start for name in order)
    ((_, batch_id),) = stages["infer"].links
    (batch,) = collector.wait(lambda one: one.span_id == batch_id)
    assert batch.links == [(span.trace_id, span.span_id)]
    # The host's clock is ours.
    assert (batch.start, batch.end - batch.start) == (
        pytest.approx(stages["infer"].start, abs=5e6),
        pytest.approx(stages["infer"].end - stages["infer"].start, abs=5e6),
    )


@pytest.mark.parametrize(
    ("path", "body", "route"),
    [
        (
            "/v2/models/scale/infer",
            {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]},
            "/v2/models/{model}/infer",
        ),
        ("/predict", {"inputs": {"x": [[1.0, 2.0, 3.0, 4.0]]}}, "/predict"),
    ],
)
def test_other_protocols_are_traced_alike(
    server: RunningServer, token: str, collector: Collector, path: str, body: Any, route: str
) -> None:
    name = path.replace("/", "-")
    headers = {"X-Access-Token": token, "X-Request-ID": name}
    assert server.client.post(path, json=body, headers=headers).status_code == 200
    span = collector.request(name)
    assert (span.name, span.attributes["pulvinar.model"]) == (f"POST {route}", "scale")
    assert collector.inside(span).keys() >= STEPS


def test_a_refusal_and_an_admins_request_have_a_span_without_stages(
    server: RunningServer, token: str, collector: Collector
) -> None:
    refused = server.client.post("/api/v1/inference/scale", json={}, headers={"X-Request-ID": "refused"})
    assert refused.status_code == 401
    span = collector.request("refused")
    assert (span.attributes["http.response.status_code"], span.failed) == (401, False)
    assert not collector.inside(span)
    server.api("GET", "/models/scale", headers={"X-Request-ID": "admin"})
    assert collector.request("admin").name == "GET /api/v1/internal/models/{name}"
    server.client.get("/nothing/here", headers={"X-Request-ID": "lost"})
    assert collector.request("lost").name == "GET"
    server.client.get("/health/live", headers={"X-Request-ID": "probe"})
    _call(server, token, "after the probe")
    assert not collector.spans(lambda one: one.attributes.get("pulvinar.request_id") == "probe")


@pytest.mark.parametrize("path", ["express", "long"])
@pytest.mark.parametrize("model", ["touchy", "touchy-apart"])
def test_a_request_whose_run_fails_has_its_stages_and_an_error_at_that_one(
    server: RunningServer, token: str, collector: Collector, model: str, path: str
) -> None:
    name = f"{model}-{path}"
    body = {"inputs": {"x": [[9.0, 0.0, 1.0, 0.0]]}, **({"parameters": {}} if path == "long" else {})}
    url = f"/api/v1/inference/{model}" + ("?version=1" if path == "long" else "")
    answer = server.client.post(url, json=body, headers={"X-Access-Token": token, "X-Request-ID": name})
    assert answer.status_code == 500, answer.text
    span = collector.request(name)
    stages = collector.inside(span)
    assert span.failed
    assert stages.keys() >= STEPS
    assert {stage.name for stage in stages.values() if stage.failed} == {"infer"}
    assert stages["infer"].attributes == {
        "pulvinar.model": model,
        "pulvinar.version": 1,
        "error.type": "run_failed",
    }
    for stage in stages.values():
        assert span.start <= stage.start <= stage.end <= span.end
    ((_, batch_id),) = stages["infer"].links
    (batch,) = collector.wait(lambda one: one.span_id == batch_id)
    assert (span.trace_id, span.span_id) in batch.links


def test_a_photo_that_cannot_be_decoded_failed_before_the_model(
    server: RunningServer, token: str, collector: Collector
) -> None:
    headers = {"X-Request-ID": "half-a-photo", "Content-Type": "image/jpeg"}
    answer = server.infer("classifier", token, content=CAT_JPEG[:300], headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    span = collector.request("half-a-photo")
    stages = collector.inside(span)
    assert stages.keys() == {"read", "preprocess", "write"}
    assert [stages[name].failed for name in ("read", "preprocess", "write")] == [False, True, False]
    assert stages["preprocess"].attributes["error.type"] == answer.json()["error"]["code"]
    assert not span.failed  # the caller's mistake


def test_each_frame_of_a_stream_has_a_span_within_the_streams(
    server: RunningServer, token: str, collector: Collector
) -> None:
    url = f"ws://127.0.0.1:{server.port}/api/v1/stream/scale"
    headers = {"X-Access-Token": token, "X-Request-ID": "stream"}
    with connect(url, additional_headers=headers) as stream:
        assert stream.response is not None
        told = stream.response.headers["traceparent"]
        for number in range(2):
            stream.send(orjson.dumps({"inputs": {"x": [[float(number), 1.0, 1.0, 1.0]]}}).decode())
            assert "error" not in orjson.loads(stream.recv(30))
    span = collector.wait(lambda one: one.name == "WS /api/v1/stream/{model}")[0]
    assert told == f"00-{span.trace_id}-{span.span_id}-01"
    frames = collector.wait(lambda one: one.name == "frame" and one.parent == span.span_id, 2)
    assert sorted(frame.attributes["pulvinar.frame"] for frame in frames) == [1, 2]
    for frame in frames:
        assert {"queue", "infer"} <= collector.inside(frame).keys()


def test_log_lines_name_the_trace_beside_the_request(server: RunningServer, token: str) -> None:
    answer = _call(server, token, "logged")
    trace_id = answer.headers["traceparent"].split("-")[1]

    def line() -> dict[str, Any] | None:
        return next((one for one in server.log_events("request") if one["request_id"] == "logged"), None)

    assert wait_until("The line of the request", line)["trace_id"] == trace_id


def _counted(server: RunningServer, outcome: str) -> float:
    found = re.search(
        rf'pulvinar_trace_spans_total{{outcome="{outcome}"}} (\d+)', server.client.get("/metrics").text
    )
    return float(found[1]) if found else 0.0


def test_spans_that_the_collector_refuses_are_counted(
    server: RunningServer, token: str, collector: Collector
) -> None:
    assert wait_until("Sent spans", lambda: _counted(server, "exported"))
    server.expected_in_log.append("Failed to export")
    collector.ill = True
    try:
        assert _call(server, token, "ill").status_code == 200
        assert wait_until("Refused spans", lambda: _counted(server, "failed"))
    finally:
        collector.ill = False


def test_a_collector_that_is_not_there_holds_nothing_up(tmp_path: Path) -> None:
    """More spans than may wait are dropped and counted; the stop gives up what is left in its time."""
    variables = {
        "PULVINAR_TRACING__ENABLED": "true",
        "PULVINAR_TRACING__ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "PULVINAR_TRACING__QUEUE_SPANS": "64",
        "PULVINAR_TRACING__FLUSH_S": "1",
    }
    with RunningServer(tmp_path, variables) as server:
        server.expected_in_log += ["Failed to export", "Transient error"]
        for _ in range(200):
            assert server.client.get("/login").status_code == 200
        assert wait_until("Dropped spans", lambda: _counted(server, "dropped"))


def test_workers_trace_batches_that_they_share(collector: Collector, tmp_path: Path) -> None:
    with RunningServer(tmp_path, _settings(collector), flags=("--workers", "2")) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale", max_batch=8, max_delay_ms=1000)
        token = server.token()
        base = f"http://127.0.0.1:{server.port}"

        def call(number: int) -> int:  # connections of their own, so that both workers have some
            headers = {"X-Access-Token": token, "X-Request-ID": f"shared-{number}"}
            body = {"inputs": {"x": [[1.0, 2.0, 3.0, 4.0]]}}
            return httpx.post(
                f"{base}/api/v1/inference/scale", json=body, headers=headers, timeout=30, **PLAIN
            ).status_code

        wait_until("That both workers know the token", lambda: all(call(1000 + n) == 200 for n in range(4)))
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(call, range(8))) == [200] * 8
        requests = [collector.request(f"shared-{number}") for number in range(8)]
        ids = {(request.trace_id, request.span_id) for request in requests}

        def batches() -> list[Span] | None:
            found = collector.spans(lambda one: one.name == "batch" and not ids.isdisjoint(one.links))
            return found if {link for one in found for link in one.links} >= ids else None

        found = wait_until("The batches of all requests", batches)
        assert max(len(one.links) for one in found) > 1
        assert wait_until("Counts of both workers", lambda: _counted(server, "exported")) > 8
