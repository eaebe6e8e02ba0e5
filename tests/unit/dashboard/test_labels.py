"""Where names stand over a picture."""

from __future__ import annotations

import itertools
import random

import pytest

from app.dashboard.pages.playground.labels import Label, placed
from app.dashboard.pages.playground.shown import Shape, shown

WIDTH, HEIGHT = 600, 400


def shapes(*boxes: tuple[str, list[float]]) -> list[Shape]:
    things = [{"label": label, "score": 0.5, "box": box} for label, box in boxes]
    timing = {"queue": 0, "preprocess": 0, "infer": 1, "postprocess": 0, "total": 1}
    return shown({"model": "m", "version": 1, "task": "t", "things": things, "timing_ms": timing}).shapes


def assert_apart(labels: list[Label]) -> None:
    for one, other in itertools.combinations(labels, 2):
        assert not one.area.overlaps(other.area), (one, other)
    for one in labels:
        assert -0.5 <= one.area.x <= WIDTH + 0.5 - one.area.width
        assert -0.5 <= one.area.y <= HEIGHT + 0.5 - one.area.height


def test_a_name_stands_on_its_box() -> None:
    (one,) = placed(shapes(("cup", [100, 100, 300, 300])), WIDTH, HEIGHT)
    assert one.text == "cup 50%"
    assert (one.area.x, one.area.y + one.area.height) == (100, 100)


def test_names_of_boxes_that_lie_on_each_other_do_not() -> None:
    labels = placed(shapes(("cup", [100, 5, 300, 300]), ("saucer", [101, 6, 290, 310])), WIDTH, HEIGHT)
    assert [one.text for one in labels] == ["cup 50%", "saucer 50%"]
    assert_apart(labels)


def test_where_there_is_no_room_for_the_name_its_number_stands() -> None:
    found = shapes(("a long name of a thing", [10, 50, 60, 90]), ("cup", [10, 150, 60, 190]))
    labels = placed(found, 120, 400)
    assert [one.text for one in labels] == ["1", "cup 50%"]


def test_where_there_is_no_room_for_a_number_either_nothing_does() -> None:
    labels = placed(shapes(*[("cup", [300, 200, 330, 225])] * 20), WIDTH, HEIGHT)
    assert_apart(labels)
    assert 3 <= len(labels) < 20


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_boxes_leave_every_name_that_is_there_readable(seed: int) -> None:
    chance = random.Random(seed)
    boxes = []
    for _ in range(100):
        x, y = chance.uniform(-20, WIDTH), chance.uniform(-20, HEIGHT)
        boxes.append(("thing", [x, y, x + chance.uniform(0, 200), y + chance.uniform(0, 200)]))
    labels = placed(shapes(*boxes), WIDTH, HEIGHT)
    assert len(labels) > 20
    assert_apart(labels)


def test_a_place_without_numbers_is_no_harm() -> None:
    assert placed([], 0, 0) == []
    assert_apart(placed(shapes(("x", [0, 0, 0, 0])), WIDTH, HEIGHT))
