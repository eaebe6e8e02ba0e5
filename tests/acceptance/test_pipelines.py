"""Pipelines over HTTP: added, checked, deployed, called, measured like models; what is kept, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.acceptance import oip_models, onnx_models
from tests.acceptance.answers import refused
from tests.databases import DIALECTS, fresh_database
from tests.servers import DEMO_IMAGES, PLAIN, ROOT, RunningServer, demo_package, wait_until, zip_bytes

DETECTOR = ROOT / "demo/models/centernet-mobilenetv3"
TENSORS = """
description: x times six.
inputs: {x: "tensor FP32 [-1, 4]"}
nodes:
  twice: {model: double, input: x}
  thrice: {model: triple, input: twice.y}
outputs: {y: thrice.y}
"""
OBJECTS = """
inputs:
  photo: image
nodes:
  detect: {model: detector, input: photo, parameters: {score_threshold: 0.3}}
  best: {op: top-k, input: detect.detections, k: 10}
  objects:
    op: map
    over: best
    as: found
    nodes:
      crop: {op: crop, inputs: {image: photo, box: found.box}}
      class: {model: classifier, input: crop, parameters: {top_k: 2}}
      named: {op: merge, inputs: {thing: found.label, box: found.box, classes: class.predictions}}
    output: named
outputs: {objects: objects.items}
"""
MANY = """
inputs: {photo: image, found: detections}
nodes:
  objects:
    op: map
    over: found
    nodes:
      crop: {op: crop, inputs: {image: photo, box: item}}
      class: {model: classifier, input: crop}
    output: class
outputs: {objects: objects.items}
"""
BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.fixture(scope="module", params=DIALECTS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp(request.param)
    with fresh_database(request.param, folder) as url:
        variables = {"PULVINAR_DATABASE__URL": url, "PULVINAR_SERVER__DRAIN_S": "15"}
        with RunningServer(folder, variables) as server:
            for name, factor in (("double", 2), ("triple", 3)):
                server.upload(name, onnx_models.scale(factor))
                server.deploy(name)
            yield server


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With the demo's detector and classifier."""
    with RunningServer(tmp_path_factory.mktemp("photos")) as server:
        files = {file.name: file.read_bytes() for file in DETECTOR.iterdir() if file.is_file()}
        server.upload("detector", zip_bytes(files))
        server.upload("classifier", demo_package())
        server.deploy("detector")
        server.deploy("classifier")
        yield server


on_any = pytest.mark.parametrize("server", [DIALECTS[0]], indirect=True)
"""For what is no matter of the store."""


def add(server: RunningServer, name: str, text: str) -> dict[str, Any]:
    added: dict[str, Any] = server.ok("POST", f"/pipelines?name={name}", content=text.encode())
    return added


def deploy(server: RunningServer, name: str, version: int = 1, **spec: Any) -> dict[str, Any]:
    accepted: dict[str, Any] = server.ok("PUT", f"/pipelines/{name}/deployment", json={"version": version, **spec})
    return accepted


def discard(server: RunningServer, name: str) -> None:
    server.api("DELETE", f"/pipelines/{name}/deployment")
    server.ok("DELETE", f"/pipelines/{name}")


@pytest.fixture
def line(server: RunningServer) -> Iterator[str]:
    """A pipeline in service."""
    add(server, "six", TENSORS)
    deploy(server, "six")
    yield "six"
    discard(server, "six")


def test_a_pipeline_lives_as_a_model_does(server: RunningServer) -> None:
    added = add(server, "line", TENSORS)
    assert added["version"]["version"] == 1
    assert added["plan"]["outputs"] == [{"name": "y", "type": "tensor FP32 [-1, 4]", "required": None}]
    assert added["plan"]["models"] == [{"model": "double", "version": None}, {"model": "triple", "version": None}]
    assert server.ok("GET", "/pipelines/line")["state"] == "stopped"
    token = server.token(models=["line"])
    refused(server.infer("line", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}), 404, "model_not_found")

    assert deploy(server, "line") == {"generation": 1, "state": "serving"}
    answer = server.infer("line", token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["version"], body["task"]) == ("line", 1, "pipeline")
    assert body["outputs"] == [{"name": "y", "dtype": "FP32", "shape": [1, 4], "data": [6, 12, 18, 24]}]
    refused(server.infer("double", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}), 404)  # the pipeline alone
    (listed,) = server.client.get("/api/v1/models", headers={"X-Access-Token": token}).json()["models"]
    assert (listed["name"], listed["task"], listed["state"]) == ("line", "pipeline", "serving")

    text = TENSORS.replace("thrice.y", "thrice.y, half: twice.y").replace("times six", "times six and two")
    second = server.ok("POST", "/pipelines/line/versions", content=text.encode())
    assert second["version"]["version"] == 2
    assert second["pipeline"]["description"] == "x times six and two."
    assert server.infer("line", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}).json()["version"] == 1
    deploy(server, "line", 2, timeout_ms=5000)
    outputs = server.infer("line", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}).json()["outputs"]
    assert [one["name"] for one in outputs] == ["y", "half"]
    told = server.ok("GET", "/pipelines/line/deployment")
    assert told["observed"] == {"generation": 2, "state": "serving", "reason": ""}
    assert (told["desired"]["version"], told["desired"]["timeout_ms"]) == (2, 5000)
    assert server.ok("GET", "/pipelines/line/versions/1")["definition"] == TENSORS

    refused(server.api("DELETE", "/pipelines/line"), 409, "conflict", "undeploy it first")
    server.ok("DELETE", "/pipelines/line/deployment")
    refused(server.infer("line", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}), 404)
    server.ok("DELETE", "/pipelines/line")
    refused(server.api("GET", "/pipelines/line"), 404, "not_found")
    actions = [entry["action"] for entry in server.ok("GET", "/audit?action=pipeline.")["items"]]
    assert actions[:6] == [
        "pipeline.delete",
        "pipeline.undeploy",
        "pipeline.deploy",
        "pipeline.version",
        "pipeline.deploy",
        "pipeline.version",
    ]


def test_names_are_taken_once(server: RunningServer, line: str) -> None:
    refused(
        server.api("POST", f"/pipelines?name={line}", content=TENSORS), 409, "conflict", "a pipeline called six"
    )
    refused(
        server.api("POST", "/pipelines?name=double", content=TENSORS), 409, "conflict", "a model called double"
    )
    refused(server.send_upload(line, onnx_models.scale(2)), 409, "conflict", "a pipeline called six")
    refused(server.api("POST", "/pipelines?name=No", content=TENSORS), 400, "bad_request")


@on_any
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TENSORS.replace("model: triple", "model: nobody"), ("line 6", "there is no model `nobody`")),
        (TENSORS.replace("input: x", "input: thrice.y"), ("a cycle", "twice", "thrice")),
        (BOMB, ("line 1", "anchors and aliases")),
        (TENSORS.replace("input: twice.y", "input: [x]"), ("line 6", "must name a value")),
        (TENSORS.replace("x times six.", '"\\0"'), ("line 2", "a character that is none")),
        ("", ("must hold",)),
        ("{", ("not YAML",)),
    ],
)
def test_a_wrong_definition_is_refused_where_it_is_wrong(
    server: RunningServer, text: str, says: tuple[str, ...]
) -> None:
    refused(server.api("POST", "/pipelines?name=bad", content=text.encode()), 422, "invalid_pipeline", *says)
    checked = server.ok("POST", "/pipelines/validate", content=text.encode())
    assert not checked["ok"]
    assert all(part in str(checked["problems"]) for part in says if not part.startswith("line"))
    refused(server.api("GET", "/pipelines/bad"), 404)


@on_any
def test_checking_alone_keeps_nothing(server: RunningServer) -> None:
    checked = server.ok("POST", "/pipelines/validate", content=TENSORS.encode())
    assert checked["ok"]
    assert checked["plan"]["modality"] == "tensor"
    assert server.ok("GET", "/pipelines")["items"] == []
    refused(server.api("POST", "/pipelines/validate", content=b"\xff"), 400)


@on_any
def test_the_open_inference_protocol_takes_it_for_a_model(server: RunningServer, line: str) -> None:
    headers = {"X-Access-Token": server.token()}
    found = server.client.get(f"/v2/models/{line}", headers=headers).json()
    assert (found["platform"], found["inputs"]) == (
        "pipeline",
        [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    )
    call = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    answer = server.client.post(f"/v2/models/{line}/infer", headers=headers, json=call)
    assert answer.json()["outputs"][0]["data"] == [6, 12, 18, 24]
    assert server.client.get(f"/v2/models/{line}/config", headers=headers).json()["backend"] == "pipeline"
    assert server.client.get(f"/v2/models/{line}/stats", headers=headers).status_code == 200


@on_any
def test_it_counts_and_so_do_its_models(server: RunningServer, line: str) -> None:
    def counted(name: str) -> float:
        lines = [one for one in server.client.get("/metrics").text.splitlines() if f'model="{name}"' in one]
        found = [one for one in lines if one.startswith("pulvinar_requests_total") and '"200"' in one]
        return sum(float(one.rsplit(" ", 1)[1]) for one in found)

    token = server.token()
    server.infer(line, token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    before = counted(line), counted("double")
    server.infer(line, token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    assert (counted(line), counted("double")) == (before[0] + 1, before[1] + 1)


@on_any
def test_a_token_for_pipelines_alone_calls_no_model(server: RunningServer, line: str) -> None:
    token = server.token(operations=["pipelines"])
    assert server.infer(line, token, json={"inputs": {"x": [[1, 2, 3, 4]]}}).status_code == 200
    refused(server.infer("double", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}), 403, "forbidden")


def stream(server: RunningServer, name: str, token: str) -> connect:
    url = f"ws://127.0.0.1:{server.port}/api/v1/stream/{name}"
    return connect(url, additional_headers={"X-Access-Token": token}, proxy=None)


def said(stream: ClientConnection) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(stream.recv(timeout=30))
    return answer


@on_any
def test_frames_of_a_stream_go_through_it_whichever_version_is_deployed(server: RunningServer) -> None:
    add(server, "flow", TENSORS)
    server.ok(
        "POST", "/pipelines/flow/versions", content=TENSORS.replace("model: triple", "model: double").encode()
    )
    deploy(server, "flow")
    with stream(server, "flow", server.token(operations=["stream", "pipelines"])) as frames:
        frames.send('{"inputs": {"x": [[1, 2, 3, 4]]}}')
        frames.send('{"inputs": {"x": [[1, 2]]}}')
        first, second = said(frames), said(frames)
        deploy(server, "flow", 2)
        frames.send('{"inputs": {"x": [[1, 2, 3, 4]]}}')
        third = said(frames)
        deploy(server, "flow", 1)  # back again
        frames.send('{"inputs": {"x": [[1, 2, 3, 4]]}}')
        fourth = said(frames)
        server.ok("DELETE", "/pipelines/flow/deployment")
        frames.send('{"inputs": {"x": [[1, 2, 3, 4]]}}')
        gone, statistics = said(frames), said(frames)
        with pytest.raises(ConnectionClosed) as closed:
            said(frames)
    server.ok("DELETE", "/pipelines/flow")
    assert (first["frame"], first["outputs"][0]["data"]) == (1, [6.0, 12.0, 18.0, 24.0])
    assert (second["frame"], second["error"]["code"]) == (2, "invalid_input")
    assert (third["version"], third["outputs"][0]["data"]) == (2, [4.0, 8.0, 12.0, 16.0])
    assert (fourth["version"], fourth["outputs"][0]["data"][0]) == (1, 6.0)
    assert (gone["frame"], gone["error"]["code"]) == (5, "model_not_found")
    assert statistics["frames"]["failed"] == 2
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404


@on_any
def test_it_has_one_version_in_service_and_the_calls_for_several_are_refused(
    server: RunningServer, line: str
) -> None:
    split = {"version": 1, "traffic": [{"version": 1, "weight": 50}]}
    refused(server.api("PUT", f"/pipelines/{line}/deployment", json=split), 422, "unprocessable", "traffic")
    refused(server.api("PUT", f"/pipelines/{line}/deployment", json={"version": 7}), 404, "not_found")
    refused(server.api("POST", f"/models/{line}/deployment/rollback"), 404)
    refused(server.api("PUT", f"/models/{line}/deployment", json={"version": 1}), 404)


@on_any
def test_a_model_that_goes_is_waited_for_and_readiness_says_so(server: RunningServer, line: str) -> None:
    token = server.token(models=[line])
    server.wait_generation("triple", server.ok("DELETE", "/models/triple/deployment")["generation"], "stopped")
    try:
        error = refused(server.infer(line, token, json={"inputs": {"x": [[1, 2, 3, 4]]}}), 503, "not_ready")
        assert "Node 'thrice': its model is not in service now." in error["message"]
        assert "triple" not in error["message"]
        observed = server.ok("GET", f"/pipelines/{line}/deployment")["observed"]
        assert (observed["state"], observed["reason"]) == ("waiting", "not in service: triple")
        ready = server.client.get("/health/ready")
        assert (ready.status_code, list(ready.json()["not_ready"])) == (503, [line])
    finally:
        server.deploy("triple")
    assert server.infer(line, token, json={"inputs": {"x": [[1, 2, 3, 4]]}}).status_code == 200
    server.wait_ready()


LINGERING = """
inputs: {n: "tensor INT64 [-1, 1]"}
nodes:
  wait: {model: slow, input: n}
  then: {model: late, input: wait.y}
outputs: {y: then.y}
"""


@on_any
def test_a_model_undeployed_while_a_pipeline_runs_answers_it_first(server: RunningServer) -> None:
    """Its lease keeps the version until the pipeline's last node has been answered, though it comes later."""
    server.upload("slow", onnx_models.counting())
    server.upload("late", oip_models.times(0, ["n", 1]))
    server.deploy("slow")
    server.deploy("late")
    add(server, "lingering", LINGERING)
    deploy(server, "lingering")
    token = server.token()
    assert server.infer("lingering", token, json={"inputs": {"n": [[1]]}}).status_code == 200

    def is_busy() -> bool:
        lines = server.client.get("/metrics").text.splitlines()
        busy = [line for line in lines if line.startswith('pulvinar_slots_busy{model="slow"')]
        return any(float(line.rsplit(" ", 1)[1]) > 0 for line in busy)

    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(server.infer, "lingering", token, json={"inputs": {"n": [[3000]]}})
        wait_until("The first node", is_busy)
        generation = server.ok("DELETE", "/models/late/deployment")["generation"]
        answer = begun.result(30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [0]
    server.wait_generation("late", generation, "stopped")
    refused(server.infer("lingering", token, json={"inputs": {"n": [[1]]}}), 503, "not_ready")
    discard(server, "lingering")


@on_any
def test_a_picture_of_it(server: RunningServer, line: str) -> None:
    answer = server.api("GET", f"/pipelines/{line}/graph")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "thrice" in answer.text
    refused(server.api("GET", f"/pipelines/{line}/graph?version=9"), 404)


@on_any
def test_the_command_line_does_the_same(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(TENSORS.replace("model: triple", "model: nobody"))
    checked = server.cli("pipeline", "check", str(file))
    assert (checked.returncode, checked.stderr.count("line 6: nodes.thrice.model")) == (1, 1)
    file.write_text(TENSORS)
    assert "It takes tensor and answers y" in server.cli("pipeline", "check", str(file)).stdout
    added = server.cli("pipeline", "add", "typed", str(file), "--deploy")
    assert added.returncode == 0, added.stderr
    token = server.token()
    wait_until(
        "That the server follows",
        lambda: server.infer("typed", token, json={"inputs": {"x": [[1, 2, 3, 4]]}}).status_code == 200,
    )
    assert server.cli("pipeline", "list").stdout == "typed\tv1\tdeployed v1\n"
    assert server.cli("pipeline", "show", "typed").stdout == TENSORS
    assert server.cli("pipeline", "show", "typed", "--graph", str(tmp_path / "a.svg")).returncode == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert server.cli("pipeline", "add", "typed", str(file)).stdout == "Version 2 of typed was added.\n"
    assert server.cli("pipeline", "deploy", "typed").returncode == 0
    assert server.cli("pipeline", "remove", "typed").returncode == 1
    assert server.cli("pipeline", "undeploy", "typed").returncode == 0
    assert server.cli("pipeline", "remove", "typed").returncode == 0
    assert server.cli("pipeline", "list").stdout == ""


def test_every_worker_follows(tmp_path: Path) -> None:
    """What one worker is told, all of them serve; so is what the command line changes."""
    with RunningServer(tmp_path, flags=("--workers", "2")) as server:
        for name, factor in (("double", 2), ("triple", 3)):
            server.upload(name, onnx_models.scale(factor))
            server.deploy(name)
        add(server, "line", TENSORS)
        deploy(server, "line")
        token = server.token()
        call = {"inputs": {"x": [[1, 2, 3, 4]]}}
        url = f"http://127.0.0.1:{server.port}/api/v1/inference/line"

        def answers() -> list[httpx.Response]:
            """Each of a new connection, which either worker may take."""
            return [
                httpx.post(url, json=call, headers={"X-Access-Token": token}, timeout=30, **PLAIN)
                for _ in range(8)
            ]

        wait_until("That all serve it", lambda: all(one.status_code == 200 for one in answers()))
        assert server.cli("pipeline", "undeploy", "line").returncode == 0
        wait_until("That none serves it", lambda: all(one.status_code == 404 for one in answers()))
        deploy(server, "line")
        wait_until("That all serve it again", lambda: all(one.status_code == 200 for one in answers()))

        def counted() -> float:
            lines = server.client.get("/metrics").text.splitlines()
            found = [
                line for line in lines if line.startswith("pulvinar_requests_total") and 'model="line"' in line
            ]
            return sum(float(line.rsplit(" ", 1)[1]) for line in found if 'status="200"' in line)

        wait_until("That the calls of both workers are counted", lambda: counted() >= 16)


def test_every_object_of_a_photo_is_classified(photos: RunningServer) -> None:
    add(photos, "objects", OBJECTS)
    deploy(photos, "objects")
    token = photos.token()
    photo = (DEMO_IMAGES / "chelsea.jpg").read_bytes()
    answer = photos.infer("objects", token, files={"image": photo}, data={"parameters": '{"node_timings": true}'})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    (cat, *_) = body["objects"]
    assert cat["thing"] in ("cat", "dog")
    assert "cat" in cat["classes"][0]["label"]
    assert body["node_timings"]["objects.class"]["calls"] == len(body["objects"])
    alone = photos.infer("detector", token, content=photo, headers={"Content-Type": "image/jpeg"}).json()
    box = alone["detections"][0]["box"]
    assert cat["box"] == pytest.approx(box, abs=1.0)


def test_photos_of_a_stream_go_through_a_pipeline_in_their_order(photos: RunningServer) -> None:
    add(photos, "watched", OBJECTS)
    deploy(photos, "watched")
    cat, cup = ((DEMO_IMAGES / name).read_bytes() for name in ("chelsea.jpg", "coffee.jpg"))
    with stream(photos, "watched", photos.token()) as frames:
        frames.send('{"type": "configure", "parameters": {"node_timings": true}}')
        for frame in (cat, b"no photo", cup):
            frames.send(frame)
        frames.send('{"type": "end"}')
        first, second, third, statistics = [json.loads(message) for message in frames]
    assert [first["frame"], second["frame"], third["frame"]] == [1, 2, 3]
    assert first["objects"][0]["thing"] in ("cat", "dog")
    assert second["error"]["code"] == "unsupported_media"
    assert third["objects"][0]["thing"] == "cup"
    assert third["node_timings"]["detect"]["calls"] == 1
    assert statistics["frames"] == {"received": 3, "answered": 2, "failed": 1, "dropped": 0}


def test_ten_thousand_detections_are_refused(photos: RunningServer) -> None:
    add(photos, "many", MANY)
    deploy(photos, "many")
    token = photos.token()
    photo = (DEMO_IMAGES / "coffee.jpg").read_bytes()
    one = '{"label": "x", "index": 0, "score": 1, "box": [0, 0, 9, 9]}'
    form = {"parameters": '{"found": [' + ", ".join([one] * 10_000) + "]}"}
    error = refused(photos.infer("many", token, files={"image": photo}, data=form), 422, "invalid_input")
    assert "Node 'objects': 10000 items came, and it takes 100 at most" in error["message"]
    form = {"parameters": '{"found": [' + ", ".join([one] * 40) + "]}"}
    answer = photos.infer("many", token, files={"image": photo}, data=form)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["objects"]) == 40


def test_the_photo_itself_is_checked_as_a_model_does(photos: RunningServer) -> None:
    token = photos.token()
    refused(photos.infer("objects", token, content=b"%PDF-1.7", headers={"Content-Type": "image/png"}), 415)
    refused(photos.infer("objects", token, json={"inputs": {"image": ["!"]}}), 422)
    with ThreadPoolExecutor(4) as callers:
        photo = (DEMO_IMAGES / "chelsea.jpg").read_bytes()
        answers = list(callers.map(lambda _: photos.infer("objects", token, files={"image": photo}), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({str(answer.json()["objects"]) for answer in answers}) == 1
