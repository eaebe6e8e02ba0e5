"""Segmentation of both kinds over HTTP: masks in the size of the photo, in both forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.answers import refused
from tests.acceptance.pictures import COFFEE_JPEG
from tests.conftest import Demo
from tests.segmenters import from_png, from_runs, instance_model, semantic_model
from tests.servers import zip_bytes

LABELS = ["table", "cup", "spoon", "coffee", "saucer"]
SEMANTIC = {"task": "semantic-segmentation", "preprocess": {"resize": {"mode": "stretch"}}, "labels": LABELS}
INSTANCE = {
    "task": "instance-segmentation",
    "preprocess": {"resize": {"mode": "stretch"}},
    "postprocess": {"layout": "yolov8", "score_threshold": 0.7, "masks": {"output": "output1"}},
    "labels": LABELS,
}


@pytest.fixture(scope="module")
def segmenters(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo's server, with two segmenters of made-up weights beside the classifier."""
    models = {"semantic": (SEMANTIC, semantic_model), "instances": (INSTANCE, instance_model)}
    for name, (manifest, make) in models.items():
        file: Path = make(tmp_path_factory.mktemp(name) / "model.onnx")
        demo.server.upload(
            name, zip_bytes({"model.onnx": file.read_bytes(), "model.yaml": yaml.safe_dump(manifest)})
        )
        demo.server.deploy(name)
    yield demo
    for name in models:
        left = demo.server.ok("DELETE", f"/models/{name}/deployment")
        demo.server.wait_generation(name, left["generation"], "stopped")
        demo.server.ok("DELETE", f"/models/{name}")


def call(demo: Demo, model: str, **parameters: str) -> dict[str, Any]:
    form: dict[str, Any] = {"files": {"image": ("coffee.jpg", COFFEE_JPEG)}}
    if parameters:
        form["data"] = {"parameters": json.dumps(parameters)}
    answer = demo.server.infer(model, demo.token, **form)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["image"] == {"width": 600, "height": 400}
    return body


def test_the_class_of_each_pixel(segmenters: Demo) -> None:
    body, by_runs = call(segmenters, "semantic"), call(segmenters, "semantic", mask_format="rle")
    print(str(by_runs)[:1000], str(body)[:1000])
    classes = from_png(body["map"])
    assert classes.shape == (400, 600)
    assert sum(mask["pixels"] for mask in body["masks"]) == 400 * 600
    for mask in by_runs["masks"]:
        assert (from_runs(mask["mask"]) == (classes == LABELS.index(mask["label"]))).all()


def test_the_mask_of_each_thing(segmenters: Demo) -> None:
    body, by_runs = call(segmenters, "instances"), call(segmenters, "instances", mask_format="rle")
    print(str(by_runs)[:1000], str(body)[:1000])
    assert len(body["masks"]) >= 3
    for one, other in zip(body["masks"], by_runs["masks"], strict=True):
        assert (from_png(one["mask"]) == from_runs(other["mask"])).all()
        assert one["box"] == other["box"]


def test_a_form_that_does_not_exist_is_refused(segmenters: Demo) -> None:
    form = {"files": {"image": ("coffee.jpg", COFFEE_JPEG)}, "data": {"parameters": '{"mask_format": "svg"}'}}
    refused(segmenters.server.infer("semantic", segmenters.token, **form), 422, "invalid_input", "png, rle")
