from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InvalidInput, InvalidPackage, UnsupportedMedia
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.text_detection import TextDetection

NOWHERE = Path("/nonexistent")
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3, -1, -1)),), (TensorSpec("map", "FP32", (-1, 1, -1, -1)),))


def task(**sections: Any) -> TextDetection:
    return TextDetection(sections, SIGNATURE, NOWHERE)


def picture(width: int, height: int, colour: tuple[int, int, int] = (255, 0, 0)) -> Payload:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return Payload(file.getvalue())


@pytest.mark.parametrize(
    ("size", "inner"),
    [
        ((900, 620), (1056, 736)),  # the shorter side is enlarged to 736
        ((1000, 1000), (992, 992)),
        ((6000, 4000), (1984, 1344)),  # the longer one is reduced to 2000
        ((6000, 20), (4000, 32)),  # a strip does not become endless
        ((5, 2000), (32, 4000)),
        ((1, 1), (736, 736)),
    ],
)
def test_a_picture_comes_to_sides_that_the_model_can_take(size: tuple[int, int], inner: tuple[int, int]) -> None:
    prepared = task().preprocess([picture(*size)], {})
    array = prepared.inputs["x"]
    assert array.shape == (1, 3, inner[1], inner[0])
    assert array.dtype == np.float32
    assert array[0, :, 0, 0].tolist() == [-1, -1, 1]  # BGR


def test_several_pictures_share_a_canvas_and_come_back_by_their_own_sizes() -> None:
    one = task(preprocess={"min_side": 32, "max_side": 64, "color": "RGB"})
    prepared = one.preprocess([picture(64, 32), picture(32, 64), picture(64, 64)], {})
    array = prepared.inputs["x"]
    assert array.shape == (3, 3, 64, 64)
    assert array[0, :, 31, 63].tolist() == [1, -1, -1]
    assert not array[0, :, 32:].any()
    maps = np.zeros((3, 1, 64, 64), np.float32)
    maps[:, :, 40:50, 4:28] = 0.9  # beyond the first picture's end
    answers = one.postprocess({"map": maps}, prepared.contexts, {})
    assert [len(answer["regions"]) for answer in answers] == [0, 1, 1]
    assert answers[1]["image"] == {"width": 32, "height": 64}


def answer(map_: np.ndarray[Any, Any], width: int = 200, height: int = 100, **sections: Any) -> list[Any]:
    one = task(preprocess={"min_side": 32, "max_side": 4000, "multiple": 1}, **sections)
    prepared = one.preprocess([picture(width, height)], {})
    regions: list[Any] = one.postprocess({"map": map_[None, None]}, prepared.contexts, {})[0]["regions"]
    return regions


def test_a_line_is_found_grown_to_what_it_was_before_it_was_shrunken() -> None:
    map_ = np.zeros((100, 200), np.float32)
    map_[40:51, 50:151] = 0.8
    (region,) = answer(map_, postprocess={"dilate": False})
    by = 100 * 10 * 1.6 / 220
    expected = [[50 - by, 40 - by], [150 + by, 40 - by], [150 + by, 50 + by], [50 - by, 50 + by]]
    assert np.abs(np.array(region["polygon"]) - expected).max() < 0.01
    assert region["score"] == pytest.approx(0.8)
    (wider,) = answer(map_)  # grown by a pixel to the right and downwards
    assert wider["polygon"][2][0] > region["polygon"][2][0]


def test_faint_small_and_too_many_regions_are_left_out() -> None:
    map_ = np.zeros((100, 200), np.float32)
    map_[10:20, 10:60] = 0.4
    map_[30:32, 10:60] = 0.9
    map_[50:60, 10:60] = 0.9
    map_[70:80, 10:60] = 0.9
    assert len(answer(map_)) == 2
    assert len(answer(map_, postprocess={"score_threshold": 0.2, "dilate": False})) == 3
    assert len(answer(map_, postprocess={"max_regions": 3})) == 1


def test_the_polygon_stays_within_the_picture() -> None:
    map_ = np.zeros((100, 200), np.float32)
    map_[0:20, 0:200] = 0.9
    (region,) = answer(map_)
    points = np.array(region["polygon"])
    assert points.min() == 0
    assert points.max(axis=0).tolist()[0] == 200


def test_lines_come_in_reading_order() -> None:
    map_ = np.zeros((100, 200), np.float32)
    for top, left in ((40, 120), (43, 20), (70, 20), (10, 60)):  # the second stands a little lower
        map_[top : top + 12, left : left + 50] = 0.9
    tops = [(round(one["polygon"][0][1]), round(one["polygon"][0][0])) for one in answer(map_)]
    assert [left > 100 for _, left in tops] == [False, False, True, False]
    assert tops[0][0] < tops[1][0] < tops[3][0]


def test_a_request_may_ask_for_surer_ones() -> None:
    one = task()
    prepared = one.preprocess([picture(736, 736)], {"score_threshold": 0.95})
    maps = np.zeros((1, 1, 736, 736), np.float32)
    maps[:, :, 100:150, 100:400] = 0.9
    assert one.postprocess({"map": maps}, prepared.contexts, {"score_threshold": 0.95})[0]["regions"] == []
    with pytest.raises(InvalidInput, match="score_threshold"):
        one.preprocess([picture(8, 8)], {"score_threshold": 2})


def test_what_is_no_picture_is_said_with_its_place() -> None:
    with pytest.raises(UnsupportedMedia, match="Image 2 of 2"):
        task().preprocess([picture(8, 8), Payload(b"%PDF")], {})
    with pytest.raises(InvalidInput):
        task().preprocess([], {})


def test_a_model_that_does_not_fit_is_refused() -> None:
    fixed = Signature((TensorSpec("x", "FP32", (-1, 3, 640, 640)),), SIGNATURE.outputs)
    with pytest.raises(InvalidPackage, match="fixed size"):
        TextDetection({}, fixed, NOWHERE)
    with pytest.raises(InvalidPackage, match="one input"):
        TextDetection({}, Signature((TensorSpec("x", "FP32", (-1, 3)),), SIGNATURE.outputs), NOWHERE)
    with pytest.raises(InvalidPackage, match=r"postprocess\.treshold"):
        TextDetection.check({"postprocess": {"treshold": 1}})
    with pytest.raises(InvalidPackage, match="no map"):
        task().check_outputs({"map": np.zeros((1, 2, 8, 8), np.float32)})
