from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.errors import InvalidInput
from core.media.images import Decoded
from core.pipelines.image_operations import whole
from core.pipelines.operations import OPERATIONS
from core.pipelines.types import fits, parse_type


def run(op: str, inputs: dict[str, Any], **options: Any) -> Any:
    operation = OPERATIONS[op]
    defaults = {name: option.default for name, option in operation.options.items()}
    (value,) = operation.run(inputs, {**defaults, **options}).values()
    return value


def picture(width: int = 40, height: int = 30) -> Decoded:
    """Red is the column, green the row."""
    rows, columns = np.mgrid[0:height, 0:width]
    return whole(np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("box", "margin", "first", "size"),
    [
        ([10.0, 5.0, 20.0, 9.0], 0.0, (10, 5), (10, 4)),
        ([10.4, 5.6, 19.2, 8.1], 0.0, (10, 5), (10, 4)),
        ([-50.0, -50.0, 5.0, 5.0], 0.0, (0, 0), (5, 5)),
        ([35.0, 25.0, 99.0, 99.0], 0.0, (35, 25), (5, 5)),
        ([12.0, 12.0, 12.0, 12.0], 0.0, (12, 12), (1, 1)),
        ([500.0, 500.0, 600.0, 600.0], 0.0, (39, 29), (1, 1)),
        ([20.0, 9.0, 10.0, 5.0], 0.0, (20, 9), (1, 1)),
        ([10.0, 10.0, 20.0, 20.0], 0.5, (5, 5), (20, 20)),
    ],
)
def test_a_crop_is_a_view_of_what_lies_in_the_box(
    box: list[float], margin: float, first: tuple[int, int], size: tuple[int, int]
) -> None:
    image = picture()
    part = run("crop", {"image": image, "box": box}, margin=margin)
    assert tuple(part.pixels[0, 0, :2]) == first
    assert (part.width, part.height) == size == part.pixels.shape[1::-1]
    assert np.shares_memory(part.pixels, image.pixels)
    assert run("crop", {"image": image, "box": {"box": box}}, margin=margin).width == size[0]


def test_a_polygon_is_turned_upright() -> None:
    upright = [[10, 5], [30, 5], [30, 15], [10, 15]]
    part = run("crop", {"image": picture(), "box": {"polygon": upright}})
    assert part.pixels.shape == (10, 20, 3)
    assert np.abs(part.pixels.astype(int) - picture().pixels[5:15, 10:30].astype(int)).max() <= 1
    turned = run("crop", {"image": picture(), "box": upright[1:] + upright[:1]})
    assert turned.pixels.shape == (20, 10, 3)
    # What was on the right is on top now.
    assert np.abs(turned.pixels[0, :, 0].astype(int) - 29).max() <= 1


@pytest.mark.parametrize(
    "box", [None, [], [1, 2, 3], ["a", 1, 2, 3], [float("nan"), 0, 1, 1], {"box": None}, [[1, 1]] * 4, [[1]] * 4]
)
def test_a_box_that_is_none_is_refused(box: Any) -> None:
    with pytest.raises(InvalidInput):
        run("crop", {"image": picture(), "box": box})


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"width": 20}, (20, 15)),
        ({"height": 60}, (80, 60)),
        ({"width": 8, "height": 9}, (8, 9)),
        ({"long_side": 20}, (20, 15)),
    ],
)
def test_resize_keeps_proportions_where_it_may(options: dict[str, int], size: tuple[int, int]) -> None:
    image = run("resize", {"image": picture()}, **options)
    assert (image.width, image.height) == size


ITEMS = [
    {"label": "cat", "score": 0.3},
    {"label": "dog", "score": 0.9},
    {"label": "cat", "score": None},
    {"label": "cow", "score": 0.5},
]


def test_items_are_chosen_by_score_and_label() -> None:
    assert run("threshold", {"items": ITEMS}, at_least=0.5) == [ITEMS[1], ITEMS[3]]
    assert run("threshold", {"items": ITEMS, "at_least": 0.8}, at_least=0.1) == [ITEMS[1]]
    assert run("threshold", {"items": ITEMS}, labels=["cat"]) == [ITEMS[0], ITEMS[2]]
    assert run("top-k", {"items": ITEMS}, k=2) == [ITEMS[1], ITEMS[3]]
    assert run("top-k", {"items": ITEMS}, k=9)[-1] == ITEMS[2]
    assert run("top-k", {"items": [1, 5, 3]}, k=2) == [5, 3]


def test_a_part_is_selected_or_its_default() -> None:
    assert run("select", {"value": ITEMS}, path="1.label") == "dog"
    assert run("select", {"value": []}, path="0.label", default="nothing") == "nothing"
    assert run("select", {"value": {"a": {"b": [1, 2]}}}, path="a.b.1", type="number") == 2
    with pytest.raises(InvalidInput, match="there is nothing at '9'"):
        run("select", {"value": ITEMS}, path="9.label")
    with pytest.raises(InvalidInput, match="is text, not number"):
        run("select", {"value": {"a": "b"}}, path="a", type="number")


def test_texts_are_filled_in_and_joined() -> None:
    assert run("text", {"a": "x", "b": 0.126}, template="{{{a}}}: {b:.2f} {b:d} {b}") == "{x}: 0.13 0 0.126"
    assert run("join", {"items": ["a", "b"]}, separator=", ") == "a, b"
    assert run("text", {"a": "{b}"}, template="{a}") == "{b}"  # what comes in is never a template
    with pytest.raises(InvalidInput, match="longer than"):
        run("join", {"items": ["x" * 600_000] * 2})


def test_lists_and_values_are_merged() -> None:
    assert run("merge", {"a": 1, "b": [2]}) == {"a": 1, "b": [2]}
    assert run("concat", {"a": [1], "b": [2, 3]}) == [1, 2, 3]


@pytest.mark.parametrize(
    ("one", "wanted", "good"),
    [
        ("text", "json", True),
        ("image", "json", False),
        ("list of image", "json", False),
        ("detections", "labels", True),
        ("labels", "detections", False),
        ("embedding [384]", "tensor FP32 [-1, 384]", True),
        ("embedding [384]", "tensor FP32 [-1, 512]", False),
        ("embedding", "tensor INT64", False),
        ("tensor FP32 [-1, 3]", "tensor [2, 3]", True),
        ("tensor FP32 [-1, 3]", "tensor FP32 [2, 3, 1]", False),
        ("json", "text", False),
    ],
)
def test_which_type_fits_where(one: str, wanted: str, good: bool) -> None:
    have, want = parse_type(one), parse_type(wanted)
    assert have is not None
    assert want is not None
    assert fits(have, want) is good
    assert parse_type(str(have)) == have


@pytest.mark.parametrize(
    "text", ["", "images", "tensor FP33", "tensor FP32 [a]", "tensor [-2]", "list of", "list"]
)
def test_what_is_no_type_is_none(text: str) -> None:
    assert parse_type(text) is None
