"""Engines through the front door: what is listed, and the same model by another engine."""

from __future__ import annotations

import pytest

from tests.acceptance.onnx_models import scale, weigh
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


def answer_of(demo: Demo, name: str) -> float:
    answer = demo.server.infer(name, demo.token, json={"inputs": {"x": [[1] * 64]}})
    return float(answer.json()["outputs"][0]["data"][0])


def test_an_engine_computes_in_the_precision_that_is_chosen(demo: Demo) -> None:
    listed = {engine["name"]: engine for engine in demo.server.ok("GET", "/system/engines")["engines"]}
    if "bf16" not in listed["openvino"]["precisions"]:
        pytest.skip("OpenVINO has no bf16 on this processor, so there is nothing of it to deploy")
    demo.server.upload("weighs", weigh(1.003))
    demo.server.deploy("weighs", engine="openvino")
    assert answer_of(demo, "weighs") == pytest.approx(64 * 1.003, rel=1e-5)
    before = demo.server.ok("GET", "/models/weighs/deployment")["desired"]
    assert (before["precision"], before["hint"]) == (None, None)
    demo.server.deploy("weighs", engine="openvino", precision="bf16", hint="throughput")
    assert answer_of(demo, "weighs") == pytest.approx(64, rel=1e-3)
    desired = demo.server.ok("GET", "/models/weighs/deployment")["desired"]
    assert (desired["precision"], desired["hint"]) == ("bf16", "throughput")
    deployed = demo.server.cli("model", "deploy", "weighs", "--version", "1", "--engine", "openvino")
    assert "weighs is serving." in deployed.stdout
    assert answer_of(demo, "weighs") == pytest.approx(64 * 1.003, rel=1e-5)
    told = ("--engine", "openvino", "--precision", "bf16", "--hint", "latency")
    assert demo.server.cli("model", "deploy", "weighs", "--version", "1", *told).returncode == 0
    assert answer_of(demo, "weighs") == pytest.approx(64, rel=1e-3)
    for wrong in (("--precision", "fp8"), ("--precision", "bf16"), ("--engine", "openvino", "--hint", "speed")):
        refused = demo.server.cli("model", "deploy", "weighs", "--version", "1", *wrong)
        assert (refused.returncode != 0, "Traceback" in refused.stderr) == (True, False), refused.stderr
        assert refused.stderr.startswith("Error: ")
        assert "\n" not in refused.stderr.strip()
    demo.server.ok("DELETE", "/models/weighs/deployment")


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"precision": "fp32"}, "`precision` is chosen for an engine: name one."),
        ({"hint": "latency"}, "`hint` is chosen for an engine: name one."),
        ({"engine": "onnx", "precision": "bf16"}, "The engine onnx has the precision fp32 on cpu here, not bf16."),
        ({"engine": "onnx", "hint": "latency"}, "The engine onnx has no `hint` to choose."),
        ({"engine": "openvino", "precision": "int8"}, "A model becomes int8 by being converted"),
        ({"engine": "openvino", "precision": "fp32", "device": "npu:7"}, "OpenVINO has no device 'npu:7' here"),
        ({"engine": "openvino", "precision": "fp8"}, "precision"),
        ({"engine": "openvino", "hint": "speed"}, "hint"),
    ],
)
def test_what_an_engine_cannot_be_told_is_refused_at_once(demo: Demo, chosen: dict[str, str], said: str) -> None:
    path = "/models/classifier/deployment"
    generation = demo.server.ok("GET", path)["desired"]["generation"]
    answer = demo.server.api("PUT", path, json={"version": 1, **chosen})
    assert answer.status_code == 422
    assert said in answer.text
    assert demo.server.ok("GET", path)["desired"]["generation"] == generation


def test_an_engine_that_is_not_installed_says_what_to_install(demo: Demo) -> None:
    listed = {engine["name"]: engine for engine in demo.server.ok("GET", "/system/engines")["engines"]}
    if listed["tensorrt"]["available"]:
        pytest.skip("this machine has TensorRT")
    demo.server.upload("by-tensorrt", scale())
    demo.server.deploy("by-tensorrt", engine="tensorrt", device="cuda:0", state="failed")
    assert "pulvinar[tensorrt]" in demo.server.observed("by-tensorrt")["reason"]
    demo.server.ok("DELETE", "/models/by-tensorrt/deployment")
