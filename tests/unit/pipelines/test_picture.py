from __future__ import annotations

import random
import re
from itertools import combinations, pairwise
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


def _crossed(root: ElementTree.Element) -> list[str]:
    """Boxes that an edge passes through without beginning or ending there; each group by itself."""
    found = []
    for group in root.iter(f"{SVG}g"):
        boxes = [_corners(one) for one in group.findall(f"{SVG}rect")]
        for edge in group.findall(f"{SVG}path"):
            places = _places(edge.attrib["d"])
            for left, top, right, bottom in boxes:
                begins, ends = places[0][0] == right, places[-1][0] == left
                if (begins and top <= places[0][1] <= bottom) or (ends and top <= places[-1][1] <= bottom):
                    continue
                if any(left < x < right and top < y < bottom for x, y in places):
                    found.append(f"{edge.attrib['d']} through {left:g} {top:g} {right:g} {bottom:g}")
    return found


def _corners(box: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def _places(path: str) -> list[tuple[float, float]]:
    """Where a path of absolute M, H and C goes, every few pixels."""
    places: list[tuple[float, float]] = []
    for letter, said in re.findall(r"([MHC])([^MHC]*)", path):
        numbers = [float(one) for one in said.split()]
        if letter == "M":
            places.append((numbers[0], numbers[1]))
            continue
        x, y = places[-1]
        if letter == "H":
            places += [(x + (numbers[0] - x) * at / 40, y) for at in range(1, 41)]
            continue
        (x1, y1), (x2, y2), (x3, y3) = zip(numbers[::2], numbers[1::2], strict=True)
        for at in range(1, 41):
            t, u = at / 40, 1 - at / 40
            across = u**3 * x + 3 * u * u * t * x1 + 3 * u * t * t * x2 + t**3 * x3
            down = u**3 * y + 3 * u * u * t * y1 + 3 * u * t * t * y2 + t**3 * y3
            places.append((across, down))
    return places


def _tangle(seed: int) -> str:
    """A definition whose nodes take what came before them, near and far."""
    dice = random.Random(seed)
    known, nodes = ["photo"], []
    for number in range(dice.randint(3, 14)):
        taken = dice.sample(known, min(len(known), dice.randint(1, 3)))
        inputs = ", ".join(f"a{at}: {one}" for at, one in enumerate(taken))
        nodes.append(f"  n{number}: {{op: merge, inputs: {{{inputs}}}}}")
        known.append(f"n{number}")
        if dice.random() < 0.2:
            body = f"{{c: {{op: crop, inputs: {{image: photo, box: {dice.choice(known)}}}}}}}"
            nodes.append(f"  m{number}: {{op: map, over: n{number}, as: one, nodes: {body}, output: c}}")
            known.append(f"m{number}")
    outputs = ", ".join(f"o{at}: {one}" for at, one in enumerate(dice.sample(known, min(len(known), 3))))
    return "inputs: {photo: image}\nnodes:\n" + "\n".join(nodes) + f"\noutputs: {{{outputs}}}\n"


@pytest.mark.parametrize("text", [CASCADE, SWITCH, *map(_tangle, range(60))])
def test_no_edge_runs_through_a_box_that_is_not_its_end(text: str) -> None:
    root = ElementTree.fromstring(draw(parsed(text), "edges"))
    assert not _crossed(root)


@pytest.mark.parametrize("text", [CASCADE, SWITCH, *map(_tangle, range(60))])
def test_no_box_lies_on_another_and_all_are_in_the_picture(text: str) -> None:
    root = ElementTree.fromstring(draw(parsed(text), "boxes"))
    for group in root.iter(f"{SVG}g"):
        boxes = [_corners(one) for one in group.findall(f"{SVG}rect")]
        for (left, top, right, bottom), (x1, y1, x2, y2) in combinations(boxes, 2):
            assert right <= x1 or x2 <= left or bottom <= y1 or y2 <= top
        assert all(left >= 0 and top >= 0 for left, top, _, _ in boxes)


def test_edges_to_several_nodes_share_their_way() -> None:
    text = """
inputs: {photo: image}
nodes:
  a: {op: merge, inputs: {x: photo}}
  b: {op: merge, inputs: {x: a}}
  c: {op: merge, inputs: {x: b, y: photo}}
  d: {op: merge, inputs: {x: b, y: photo}}
outputs: {c: c, d: d}
"""
    root = ElementTree.fromstring(draw(parsed(text), "shared"))
    ways = [one.attrib["d"] for one in root.iter(f"{SVG}path") if one.attrib.get("class") == "edge"]
    far = [way for way in ways if way.count("C") == 3]
    assert len(far) == 2
    assert far[0].rsplit("C", 1)[0] == far[1].rsplit("C", 1)[0]


def test_a_node_whose_name_begins_like_an_output_stands_where_it_runs() -> None:
    text = """
inputs: {photo: image}
nodes:
  outline: {op: merge, inputs: {x: photo}}
  out: {op: merge, inputs: {x: outline}}
  many: {op: map, over: out, as: one, nodes: {out: {op: merge, inputs: {x: one}}}, output: out}
outputs: {a: many}
"""
    root = ElementTree.fromstring(draw(parsed(text), "outs"))
    assert not _crossed(root)
    said = [one.text for one in root.iter(f"{SVG}text")]
    assert said.count("out") == 3  # the node, the one within, and the value of that
    places = {one.text: float(one.attrib["x"]) for one in root.iter(f"{SVG}text")}
    assert places["outline"] < places["many"] < places["a"]
