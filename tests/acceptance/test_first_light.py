"""The whole path: sign in, upload, validate, deploy, make a token, call; on both databases, over a restart."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused, top1
from tests.acceptance.pictures import CAT_JPEG, CATS, COFFEE_JPEG
from tests.conftest import Demo
from tests.databases import DIALECTS, bare_database
from tests.servers import DEMO_IMAGES, RunningServer, run_cli, wait_until

PHOTOS = {"chelsea.jpg": CATS, "coffee.jpg": {"espresso"}, "rocket.jpg": {"missile", "projectile, missile"}}


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("size", ["as it is", 200, 1080, 3000])
def test_a_photo_of_any_size_gets_the_right_label(demo: Demo, photo: str, size: int | str) -> None:
    data = (DEMO_IMAGES / photo).read_bytes()
    if isinstance(size, int):
        data = _scaled(data, size)
    assert top1(demo.server.infer("classifier", demo.token, content=data)) in PHOTOS[photo]


def _scaled(data: bytes, height: int) -> bytes:
    image = Image.open(io.BytesIO(data))
    buffer = io.BytesIO()
    width = round(image.width * height / image.height)
    image.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def test_the_three_ways_to_send_a_picture_agree(demo: Demo) -> None:
    import base64

    by_body = demo.server.infer("classifier", demo.token, content=CAT_JPEG, headers={"Content-Type": "image/jpeg"})
    by_form = demo.server.infer("classifier", demo.token, files={"image": ("cat.jpg", CAT_JPEG, "image/jpeg")})
    text = base64.b64encode(CAT_JPEG).decode()
    by_json = demo.server.infer("classifier", demo.token, json={"inputs": {"image": text}})
    predictions = [answer.json()["predictions"] for answer in (by_body, by_form, by_json)]
    assert predictions[0] == predictions[1] == predictions[2]
    assert len(predictions[0]) == 5


def test_an_answer_says_who_answered_and_how_long_it_took(demo: Demo) -> None:
    answer = demo.server.infer("classifier", demo.token, content=CAT_JPEG, headers={"X-Request-ID": "mine-1"})
    body = answer.json()
    assert answer.headers["x-request-id"] == body["request_id"] == "mine-1"
    assert (body["model"], body["version"], body["task"]) == ("classifier", 1, "image-classification")
    assert set(body["timing_ms"]) == {"queue", "preprocess", "infer", "postprocess", "total"}
    assert body["timing_ms"]["total"] >= body["timing_ms"]["infer"] > 0
    # Lines are written a few times a second.
    wait_until("Its line", lambda: demo.server.log_events("request")[-1]["request_id"] == "mine-1")


def test_several_pictures_are_answered_in_order(demo: Demo) -> None:
    pictures = [CAT_JPEG, COFFEE_JPEG, CAT_JPEG, COFFEE_JPEG, COFFEE_JPEG]
    files = [("image", (f"{i}.jpg", picture)) for i, picture in enumerate(pictures)]
    answer = demo.server.infer("classifier", demo.token, files=files, data={"parameters": '{"top_k": 1}'})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [len(result["predictions"]) for result in results] == [1] * 5
    is_cat = [result["predictions"][0]["label"] in CATS for result in results]
    assert is_cat == [True, False, True, False, False]


def test_the_models_that_a_token_may_call(demo: Demo) -> None:
    answer = demo.server.client.get("/api/v1/models", headers={"Authorization": f"Bearer {demo.token}"})
    classifier = next(model for model in answer.json()["models"] if model["name"] == "classifier")
    assert classifier["state"] == "serving"
    assert classifier["inputs"] == [{"name": "image", "dtype": "FP32", "shape": [-1, 3, 224, 224]}]
    none = demo.server.token(models=["others-*"])
    answer = demo.server.client.get("/api/v1/models", headers={"X-Access-Token": none})
    assert answer.json() == {"models": []}


def _metric(demo: Demo, name: str, **labels: str) -> float:
    """The sum of the samples of that name that have these labels, whatever others they have."""
    answer = demo.server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = [
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"{name} {labels}"
    return sum(found)


def test_metrics_count_what_was_asked(demo: Demo) -> None:
    demo.server.infer("classifier", demo.token, content=CAT_JPEG)
    mine = {"model": "classifier", "version": "1", "status": "200"}
    before = _metric(demo, "pulvinar_requests_total", **mine)
    batches = _metric(demo, "pulvinar_batch_items_count", model="classifier")
    for _ in range(3):
        demo.server.infer("classifier", demo.token, content=CAT_JPEG)
    assert _metric(demo, "pulvinar_requests_total", **mine) == before + 3
    assert _metric(demo, "pulvinar_batch_items_count", model="classifier") == batches + 3
    assert _metric(demo, "pulvinar_batch_items_bucket", model="classifier", le="+Inf") == batches + 3
    assert _metric(demo, "pulvinar_stage_seconds_count", model="classifier", stage="infer") >= before + 3
    assert _metric(demo, "pulvinar_deployments", state="serving") >= 1
    assert _metric(demo, "pulvinar_queue_depth", model="classifier") == 0


def test_statistics_count_what_was_asked(demo: Demo) -> None:
    demo.server.infer("classifier", demo.token, content=CAT_JPEG)
    stats = demo.server.ok("GET", "/system/stats")
    mine = next(model for model in stats["models"] if model["model"] == "classifier")
    assert mine["requests"] > 0
    assert mine["mean_ms"] > 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_sign_in_upload_deploy_token_call_restart(dialect: str, tmp_path: Path) -> None:
    with bare_database(dialect, tmp_path) as url:
        variables = {"PULVINAR_DATABASE__URL": url}
        migrated = run_cli("migrate", cwd=tmp_path, variables=variables, whole=True)
        assert migrated.returncode == 0, migrated.stderr
        with RunningServer(tmp_path, variables, whole=True) as server:
            assert server.ok("GET", "/auth/me") == {"username": "admin", "role": "admin"}
            assert server.upload("scale", onnx_models.scale()) == 1
            server.deploy("scale")
            token = server.token()
            _answers_doubled(server, token)
            for answer in _with_nul(server):  # PostgreSQL cannot keep one, SQLite can
                assert answer.is_success if dialect == "sqlite" else refused(answer, 400)
            server.restart()
            _answers_doubled(server, token)
            assert server.ok("GET", "/auth/me")["username"] == "admin"
            actions = {entry["action"] for entry in server.ok("GET", "/audit")["items"]}
            assert actions >= {"auth.login", "model.create", "version.create", "deployment.put", "token.create"}


def _with_nul(server: RunningServer) -> list[httpx.Response]:
    return [
        server.api("GET", "/models", params={"search": "a\0b"}),
        server.api("PATCH", "/models/scale", json={"description": "a\0b"}),
        server.api("POST", "/tokens", json={"name": "a\0b"}),
        server.api("GET", "/audit", params={"actor": "a\0b"}),
    ]


def _answers_doubled(server: RunningServer, token: str) -> None:
    answer = server.infer("scale", token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    assert answer.status_code == 200, answer.text
    output = answer.json()["outputs"][0]
    assert output == {"name": "y", "dtype": "FP32", "shape": [1, 4], "data": [2.0, 4.0, 6.0, 8.0]}
