from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.media import masks


def from_runs(runs: dict[str, list[int]]) -> np.ndarray:
    """As COCO's tools read them."""
    height, width = runs["size"]
    values = np.repeat(np.arange(len(runs["counts"])) % 2, runs["counts"])
    return values.reshape(width, height).T.astype(bool)


def from_png(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_parts_of_masks_come_back_whole(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    bottom, right = data.draw(st.integers(top, height)), data.draw(st.integers(left, width))
    seed, density = data.draw(st.integers(0, 999)), data.draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    part = np.random.default_rng(seed).random((bottom - top, right - left)) < density
    whole = np.zeros((height, width), bool)
    whole[top:bottom, left:right] = part
    runs = masks.runs_of(part, left, top, (height, width))
    assert runs["size"] == [height, width]
    assert sum(runs["counts"]) == height * width
    assert all(count > 0 for count in runs["counts"][1:])
    assert (from_runs(runs) == whole).all()
    if part.size:
        assert (from_png(masks.png_of(part, left, top, (height, width))) == whole).all()


def test_runs_go_down_the_columns_and_begin_with_zeros() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 1], [1, 1, 0]], bool)
    assert masks.runs_of(mask, 0, 0, (3, 3)) == {"size": [3, 3], "counts": [2, 6, 1]}
    assert masks.runs_of(np.ones((2, 2), bool), 0, 0, (2, 2))["counts"] == [0, 4]


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65535)])
def test_maps_of_classes_are_grey(dtype: type, most: int) -> None:
    classes = np.array([[0, 1, 2], [most, 3, 4]], dtype)
    assert (from_png(masks.png_of_classes(classes)) == classes).all()
