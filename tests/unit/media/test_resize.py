from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from core.media import resize


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "size", "fraction", "box"),
    [
        (451, 300, (224, 224), 0.875, (94, 19, 356, 281)),
        (300, 451, (224, 224), 0.875, (19, 94, 281, 356)),
        (100, 100, (50, 50), 1.0, (0, 0, 100, 100)),
        (100, 100, (50, 100), 1.0, (0, 25, 100, 75)),
        (1, 1, (224, 224), 0.875, (0, 0, 1, 1)),
        (1, 5000, (224, 224), 0.875, (0, 2499, 1, 2500)),
    ],
)
def test_center_box(width, height, size, fraction, box) -> None:
    assert resize.center_box(width, height, size, fraction) == box


def test_a_whole_box_is_crop_and_resize() -> None:
    image = pixels(300, 451)
    expected = Image.fromarray(image).crop((94, 19, 356, 281)).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(resize.resample(image, (94, 19, 356, 281), (224, 224)), np.asarray(expected))


def test_nothing_is_copied_where_the_size_is_right() -> None:
    image = pixels(64, 64)
    assert np.shares_memory(resize.resample(image, (8, 8, 40, 40), (32, 32)), image)


def test_a_fractional_box_keeps_its_place() -> None:
    ramp = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2)
    middle = resize.resample(ramp, (10.5, 0, 20.5, 8), (8, 10), "bilinear")
    assert middle[4, 5, 0] == pytest.approx(62, abs=0.5)


def test_a_scaled_box_stays_inside() -> None:
    assert resize.scaled((0, 0, 1619, 1083), 0.25, pixels(271, 405)) == (0, 0, 404.75, 270.75)
    assert resize.scaled((0, 0, 100, 100), 1.0, pixels(100, 99)) == (0, 0, 99, 100)


def test_letterbox_centres_on_grey() -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    boxed = resize.letterbox(image, (0, 0, 100, 50), (64, 64))
    assert boxed.shape == (64, 64, 3)
    assert (boxed[:16] == 114).all()
    assert (boxed[48:] == 114).all()
    assert (boxed[16:48] == 7).all()


def test_letterbox_of_a_line() -> None:
    assert resize.letterbox(pixels(1, 4000), (0, 0, 4000, 1), (32, 32)).shape == (32, 32, 3)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_filter(interpolation: resize.Interpolation) -> None:
    resized = resize.resample(np.full((40, 60, 3), 90, np.uint8), (0, 0, 60, 40), (10, 20), interpolation)
    assert resized.shape == (10, 20, 3)
    assert (resized == 90).all()
