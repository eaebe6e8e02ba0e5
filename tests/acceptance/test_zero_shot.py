"""Zero-shot classification over HTTP, and a text model that validation does not overlook."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest
from onnx import helper

from tests import towers
from tests.acceptance.answers import refused
from tests.conftest import Demo


@pytest.fixture(scope="module")
def colours(demo: Demo) -> Iterator[Demo]:
    """The demo's server, with a model that knows colours beside the classifier."""
    demo.server.upload("colours", towers.package())
    demo.server.deploy("colours")
    yield demo
    left = demo.server.ok("DELETE", "/models/colours/deployment")
    demo.server.wait_generation("colours", left["generation"], "stopped")
    demo.server.ok("DELETE", "/models/colours")


def test_labels_of_the_model_and_of_a_call(colours: Demo) -> None:
    answer = colours.server.infer("colours", colours.token, content=towers.picture(200, 30, 40))
    print(answer.text)
    assert [one["label"] for one in answer.json()["predictions"]] == ["red", "blue", "green"]
    form = {"files": {"image": towers.picture(0, 0, 250)}, "data": {"parameters": '{"labels": ["green", "blue"]}'}}
    answer = colours.server.infer("colours", colours.token, **form)
    print(answer.text)
    assert [(one["label"], one["index"]) for one in answer.json()["predictions"]] == [("blue", 1), ("green", 0)]
    form["data"] = {"parameters": '{"labels": []}'}
    refused(colours.server.infer("colours", colours.token, **form), 422, "invalid_input", "labels")


def test_a_model_may_leave_all_labels_to_its_calls(demo: Demo) -> None:
    described = towers.manifest()
    del described["labels"]
    demo.server.upload("unlabelled-colours", towers.package(described))
    demo.server.deploy("unlabelled-colours")
    form = {"files": {"image": towers.picture(0, 0, 250)}, "data": {"parameters": '{"labels": ["green", "blue"]}'}}
    answer = demo.server.infer("unlabelled-colours", demo.token, **form)
    assert answer.json()["predictions"][0]["label"] == "blue"
    plain = demo.server.infer("unlabelled-colours", demo.token, content=towers.picture(0, 0, 250))
    refused(plain, 422, "invalid_input", "no labels of its own")
    left = demo.server.ok("DELETE", "/models/unlabelled-colours/deployment")
    demo.server.wait_generation("unlabelled-colours", left["generation"], "stopped")
    demo.server.ok("DELETE", "/models/unlabelled-colours")


def test_the_text_model_is_checked_as_the_other_is(demo: Demo) -> None:
    strange = onnx.load_model_from_string(towers.text_tower())
    strange.graph.node.insert(0, helper.make_node("Strange", ["table"], ["never"], domain="somebody.else"))
    strange.opset_import.append(helper.make_opsetid("somebody.else", 1))
    package = towers.package(**{"text.onnx": strange.SerializeToString()})
    demo.server.send_upload("strange", package)
    version = demo.server.wait_version("strange", 1)
    assert version["status"] == "invalid"
    failed = {row["check"]: row["detail"] for row in version["report"] if not row["ok"]}
    assert list(failed) == ["operators"]
    assert "somebody.else::Strange" in failed["operators"]
    demo.server.ok("DELETE", "/models/strange")
