"""`POST /predict`: the content chooses the model, and administrators choose what the choice falls on."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.answers import is_cat, refused
from tests.acceptance.pictures import CAT_JPEG, COFFEE_JPEG
from tests.conftest import Demo


class Caller:
    """Calls `/predict`, and sets the defaults that it goes by."""

    def __init__(self, demo: Demo) -> None:
        self.server, self.token = demo.server, demo.token

    def predict(self, *, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {"X-Access-Token": token or self.token, **options.pop("headers", {})}
        return self.server.client.post("/predict", headers=headers, **options)

    def activate(self, model: str | None, modality: str | None = None, **options: Any) -> httpx.Response:
        return self.server.api("POST", "/models/activate", json={"model": model, "modality": modality}, **options)


@pytest.fixture
def caller(tensors: Demo) -> Iterator[Caller]:
    caller = Caller(tensors)
    yield caller
    for modality in ("image", "tensor"):
        caller.activate(None, modality)


def test_an_image_goes_to_the_default_for_images(caller: Caller) -> None:
    assert caller.activate("classifier").json() == {"defaults": {"image": "classifier"}}
    answer = caller.predict(content=CAT_JPEG, headers={"Content-Type": "audio/wav"})
    assert is_cat(answer)
    said = answer.json()
    assert (said["model"], said["version"], said["modality"]) == ("classifier", 1, "image")
    assert said["latency_ms"] >= said["timing_ms"]["total"] > 0
    assert said["request_id"] == answer.headers["x-request-id"]


def test_each_way_of_sending_a_file_is_understood(caller: Caller) -> None:
    in_base64 = base64.b64encode(CAT_JPEG).decode()
    for options in (
        {"files": {"file": ("cat.bin", CAT_JPEG)}},
        {"json": {"inputs": {"image": in_base64}}},
        {"json": {"inputs": in_base64, "parameters": {"top_k": 1}}},
    ):
        assert is_cat(caller.predict(**options))
    both = caller.predict(files=[("image", CAT_JPEG), ("image", COFFEE_JPEG)]).json()
    assert [result["predictions"][0]["label"] for result in both["results"]][1] == "espresso"


def test_tensors_go_to_the_default_for_tensors(caller: Caller) -> None:
    body = {"inputs": {"x": [[1, 2, 3, 4]]}}
    two = caller.server.token(models=["ratio", "scale"])  # others' models are served here too
    refused(caller.predict(json=body, token=two), 404, "model_not_found", "several models", "ratio, scale")
    caller.activate("scale")
    answer = caller.predict(json=body).json()
    assert answer["model"] == "scale"
    assert answer["outputs"][0]["data"] == [2, 4, 6, 8]
    refused(caller.predict(json={"inputs": {"y": [[1]]}}), 422, "invalid_input", "'y'")


def test_what_fits_no_model_is_refused_with_what_was_seen(caller: Caller) -> None:
    refused(caller.predict(content=b"II*\0" + bytes(60)), 415, "unsupported_media", "a TIFF image")
    refused(caller.predict(content=b"just words"), 404, "model_not_found", "This is text")
    refused(caller.predict(content=b""), 400, "bad_request", "empty")
    mixed = [("image", CAT_JPEG), ("file", ("a.txt", b"words", "text/plain"))]
    refused(caller.predict(files=mixed), 422, "invalid_input", "image and text")
    refused(caller.server.client.put("/predict", headers={"X-Access-Token": caller.token}), 405)


def test_a_token_gets_no_further_than_by_name(caller: Caller) -> None:
    caller.activate("classifier")
    elsewhere = caller.server.token(models=["scale"])
    error = refused(
        caller.predict(content=CAT_JPEG, token=elsewhere), 404, "model_not_found", "not for this token"
    )
    assert "classifier" not in error["message"]
    assert caller.predict(json={"inputs": [[1, 2, 3, 4]]}, token=elsewhere).json()["model"] == "scale"
    refused(caller.predict(content=CAT_JPEG, token=caller.server.token(operations=["list"])), 403, "forbidden")
    once = caller.server.token(rate="1/hour")
    assert caller.predict(content=CAT_JPEG, token=once).headers["x-ratelimit-remaining"] == "0"
    refused(caller.predict(content=CAT_JPEG, token=once), 429, "limit_exceeded")


def test_the_defaults_are_shown(caller: Caller) -> None:
    caller.activate("classifier")
    caller.activate("scale", "tensor")
    listed = {one["name"]: one for one in caller.server.ok("GET", "/models")["items"]}
    assert listed["classifier"]["default_for"] == "image"
    assert listed["scale"]["default_for"] == "tensor"
    assert listed["ratio"]["default_for"] is None
    for path in ("/models", "/api/v1/models"):
        models = caller.server.client.get(path, headers={"X-Access-Token": caller.token}).json()["models"]
        assert {one["name"] for one in models if one["default"]} == {"classifier", "scale"}
        assert {one["name"]: one["modality"] for one in models}["ratio"] == "tensor"


def test_a_default_must_be_in_service_and_of_its_modality(caller: Caller) -> None:
    refused(caller.activate("nobody"), 404, "model_not_found", "There is no model 'nobody' in service.")
    refused(caller.activate("idle"), 404, "model_not_found")
    refused(caller.activate("scale", "image"), 409, "conflict", "takes tensor")
    refused(caller.activate(None), 422, "unprocessable")
    refused(caller.activate(None, "text"), 404, "not_found")
    caller.activate("scale")
    assert caller.activate("ratio").json()["defaults"] == {"tensor": "ratio"}
    assert caller.activate(None, "tensor").json()["defaults"] == {}


def test_a_default_that_is_undeployed_is_not_replaced_by_another(caller: Caller) -> None:
    caller.server.deploy("idle")
    try:
        caller.activate("idle")
    finally:
        accepted = caller.server.ok("DELETE", "/models/idle/deployment")
        caller.server.wait_generation("idle", accepted["generation"], "stopped")
    refused(caller.predict(json={"inputs": [[1, 2, 3, 4]]}), 404, "model_not_found", "'idle'")
