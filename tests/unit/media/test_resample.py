from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from core.media import resample, resize


def photo_like(height: int, width: int) -> np.ndarray:
    """Smooth, with edges and noise."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = 127 + 90 * np.sin(x / 17)[:, :, None] * np.cos(y / 11)[:, :, None] * np.array([1, 0.7, -0.9])
    waves[:, width // 3 : width // 2] = 255
    return (waves + random.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("source", "box", "size"),
    [
        ((480, 640), (110, 30, 530, 450), (224, 224)),
        ((540, 960), (243.5, 33.5, 716, 506), (224, 224)),
        ((1080, 1920), (0, 0, 1920, 1080), (320, 320)),
        ((300, 301), (0.25, 0.75, 300.5, 299.25), (224, 299)),
        ((2000, 40), (0, 0, 40, 2000), (30, 30)),
    ],
)
def test_the_levels_are_those_of_pillow(interpolation, source, box, size) -> None:
    image = photo_like(*source)
    expected = resize.resample(image, box, size, interpolation).transpose(2, 0, 1).astype(np.float32)
    levels = resample.resample(image, box, size, interpolation)
    assert levels.shape == (3, *size)
    assert np.abs(levels - expected).max() <= 1
    assert (levels != expected).mean() < 0.01  # sums that end on a half, in floats here and in whole numbers there


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("source", [225, 231, 294, 337, 480, 900, 1601, 3000])
def test_a_pass_is_a_few_products_of_many_blocks(interpolation, source) -> None:
    """Each call gives the interpreter's lock away and waits for it again, beside others that do the same."""
    for begins in (0.0, 0.4):
        rows = resample._blocks(source, 224, begins, source - begins, interpolation)
        made = [blocks.weights.shape[0] * blocks.weights.shape[1] for blocks in rows]
        assert len(rows) <= 8
        assert [blocks.first for blocks in rows] == [sum(made[:place]) for place in range(len(rows))]
        assert sum(made) == 224


@pytest.mark.parametrize("turn", [lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.transpose(1, 0, 2)])
def test_views_that_are_not_contiguous_are_read_as_they_look(turn) -> None:
    image = turn(photo_like(400, 500))
    height, width = image.shape[:2]
    levels = resample.resample(image, (0, 0, width, height), (100, 120))
    assert np.array_equal(
        levels, resample.resample(np.ascontiguousarray(image), (0, 0, width, height), (100, 120))
    )


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100), (50, 50)])
def test_enlarging_is_pillow_itself(height, width) -> None:
    image = photo_like(height, width)
    box = (0, 0, width, height)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
    assert np.array_equal(resample.resample(image, box, (224, 224)), expected.transpose(2, 0, 1))


def test_letterbox_is_grey_around_the_picture() -> None:
    image = photo_like(300, 600)
    canvas = resample.letterbox(image, (0, 0, 600, 300), (200, 200))
    assert canvas.shape == (3, 200, 200)
    assert (canvas[:, :50] == 114).all()
    assert (canvas[:, 150:] == 114).all()
    expected = resize.letterbox(image, (0, 0, 600, 300), (200, 200)).transpose(2, 0, 1)
    assert np.abs(canvas - expected).max() <= 1
