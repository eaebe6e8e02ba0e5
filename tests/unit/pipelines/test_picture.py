from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from core.pipelines.definition import parsed
from core.pipelines.picture import draw
from tests.unit.pipelines.facts import CASCADE
from tests.unit.pipelines.test_validation import SWITCH

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("text", [CASCADE, SWITCH])
def test_every_node_is_drawn_inside_of_the_picture(text: str) -> None:
    root = ElementTree.fromstring(draw(parsed(text), "line version 1"))
    said = {element.text for element in root.iter(f"{SVG}text")}
    for name in parsed(text).nodes.keys() | parsed(text).inputs.keys() | parsed(text).outputs.keys():
        assert name in said
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter(f"{SVG}rect"):
        if box.attrib.get("class"):
            assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
            assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height
    assert len(list(root.iter(f"{SVG}path"))) > 4


def test_what_a_definition_says_is_no_markup() -> None:
    text = SWITCH.replace("[cat, dog]", "['<script>alert(1)</script>', \"\\u0001&\"]")
    root = ElementTree.fromstring(draw(parsed(text), "<b>&"))
    assert not list(root.iter(f"{SVG}script"))
    assert root.findtext(f"{SVG}title") == "<b>&"


def test_what_stands_on_edges_does_not_lie_on_each_other() -> None:
    text = """
inputs: {photo: image}
nodes:
  d: {model: detector, input: photo}
  a: {op: select, input: d.detections, path: "0"}
  b: {op: select, input: d.image, path: "width"}
  c: {op: select, input: d.answer, path: "x"}
outputs: {a: a, b: b, c: c}
"""
    root = ElementTree.fromstring(draw(parsed(text), "ports"))
    labels = [one for one in root.iter(f"{SVG}text") if "port" in one.attrib.get("class", "")]
    assert {one.text for one in labels} >= {"detections", "image", "answer"}
    places = sorted((float(one.attrib["x"]), float(one.attrib["y"])) for one in labels)
    for (x, y), (other_x, other_y) in pairwise(places):
        assert x != other_x or other_y - y >= 12
