"""Engines through the front door: what is listed, and the same model by another engine."""

from __future__ import annotations

import pytest

from tests.acceptance.onnx_models import scale
from tests.conftest import Demo

INPUT = {"inputs": {"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}}


def test_every_engine_is_listed_with_what_it_can_do_or_what_it_needs(demo: Demo) -> None:
    listed = {engine["name"]: engine for engine in demo.server.ok("GET", "/system/engines")["engines"]}
    assert next(iter(listed)) == "onnx"
    assert listed["openvino"]["version"]
    assert "cpu" in listed["openvino"]["devices"]
    assert "fp32" in listed["openvino"]["precisions"]
    for engine in listed.values():
        assert engine["available"] or (engine["reason"] and "install" in engine["hint"])


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_openvino_serves_what_onnx_runtime_does(demo: Demo, isolation: str) -> None:
    name = f"by-openvino-{isolation}"
    demo.server.upload(name, scale())
    demo.server.deploy(name, engine="openvino", isolation=isolation)
    answer = demo.server.infer(name, demo.token, json=INPUT)
    assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12, 14, 16]
    demo.server.ok("DELETE", f"/models/{name}/deployment")


def test_an_engine_that_is_not_installed_says_what_to_install(demo: Demo) -> None:
    listed = {engine["name"]: engine for engine in demo.server.ok("GET", "/system/engines")["engines"]}
    if listed["tensorrt"]["available"]:
        pytest.skip("this machine has TensorRT")
    demo.server.upload("by-tensorrt", scale())
    demo.server.deploy("by-tensorrt", engine="tensorrt", device="cuda:0", state="failed")
    assert "pulvinar[tensorrt]" in demo.server.observed("by-tensorrt")["reason"]
    demo.server.ok("DELETE", "/models/by-tensorrt/deployment")
