"""Boxes cut out of uint8 RGB arrays and brought to a size, by Pillow's antialiased filters, as float32 planes.

What Pillow does pixel by pixel is done here as products of matrices: of a few rows at a time, since a row of the
result takes part of a few rows of the image only. That takes a third of the time (`docs/decisions/010`), and comes
out as what models eat: planes of floats, which were not rounded on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from core.media import resize
from core.media.resize import Box, Interpolation, Pixels, Size, inside

Floats = np.ndarray[Any, np.dtype[np.float32]]
Weights = np.ndarray[Any, np.dtype[np.float64]]

ROWS: Final = 16
"""Of the result, made at a time: more rows read more of the image in vain, fewer are too many calls."""


class Block(NamedTuple):
    """Rows `first` to `last` of the result are `weights` times the rows `start` to `stop` of the source."""

    first: int
    last: int
    start: int
    stop: int
    weights: Floats


def resample(pixels: Pixels, box: Box, size: Size, interpolation: Interpolation = "bicubic") -> Floats:
    """The box, in pixels of `pixels` [height, width, 3], resized to `size`: [3, height, width] from 0 to 255.

    Within about one level of what Pillow answers. Not for `nearest`.
    """
    height, width = size
    if box[2] - box[0] <= width or box[3] - box[1] <= height:
        # Little to do, and the cubic filters overshoot: where they are cut off would make a difference.
        return resize.resample(pixels, box, size, interpolation).transpose(2, 0, 1).astype(np.float32)
    left, top = math.floor(box[0]), math.floor(box[1])
    part = pixels[top : math.ceil(box[3]), left : math.ceil(box[2])]
    down = _blocks(part.shape[0], height, box[1] - top, box[3] - top, interpolation)
    across = _blocks(part.shape[1], width, box[0] - left, box[2] - left, interpolation)
    turned = _down(part, down, height)
    result = np.empty((width, 3 * height), np.float32)
    for block in across:
        np.matmul(block.weights, turned[block.start : block.stop], out=result[block.first : block.last])
    np.rint(np.clip(result, 0, 255, out=result), out=result)
    return result.reshape(width, 3, height).transpose(1, 2, 0)


def letterbox(
    pixels: Pixels, box: Box, size: Size, interpolation: Interpolation = "bicubic", fill: int = 114
) -> Floats:
    """The box resized to fit inside `size`, proportions kept, centred on grey `fill`; as `resample` otherwise."""
    inner, top, left = inside(box, size)
    canvas = np.full((3, *size), fill, np.float32)
    canvas[:, top : top + inner[0], left : left + inner[1]] = resample(pixels, box, inner, interpolation)
    return canvas


def _down(part: Pixels, blocks: tuple[Block, ...], height: int) -> Floats:
    """Shrink or stretch along the first axis; the answer is turned on its side, [width, 3 * height]."""
    width = part.shape[1]
    turned = np.empty((width * 3, height), np.float32)
    for block in blocks:
        rows = part[block.start : block.stop].astype(np.float32).reshape(-1, width * 3)
        turned[:, block.first : block.last] = rows.T @ block.weights.T
    np.clip(turned, 0, 255, out=turned)  # the cubic filters overshoot at edges; Pillow, too, cuts them off here
    return turned.reshape(width, 3 * height)


@lru_cache(maxsize=256)
def _blocks(
    source: int, target: int, start: float, stop: float, interpolation: Interpolation
) -> tuple[Block, ...]:
    """The matrix from `source` to `target` samples, of which only the blocks are kept that are not zero.

    As `precompute_coeffs` of Pillow's `Resample.c`: the filter is stretched when it shrinks, and cut at the edges.
    """
    reach, kernel = _FILTERS[interpolation]
    scale = (stop - start) / target
    stretch = max(scale, 1.0)
    centres = start + (np.arange(target) + 0.5) * scale
    firsts = np.maximum((centres - reach * stretch + 0.5).astype(np.int64), 0)
    lasts = np.minimum((centres + reach * stretch + 0.5).astype(np.int64), source)
    places = firsts[:, None] + np.arange(int((lasts - firsts).max()))
    weights = kernel((places - centres[:, None] + 0.5) / stretch)
    weights[places >= lasts[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return tuple(_block(first, firsts, lasts, weights) for first in range(0, target, ROWS))


def _block(first: int, firsts: Any, lasts: Any, weights: Weights) -> Block:
    last = min(first + ROWS, len(firsts))
    start, stop = int(firsts[first]), int(lasts[last - 1])
    dense = np.zeros((last - first, stop - start), np.float32)
    for row in range(first, last):
        count = lasts[row] - firsts[row]
        dense[row - first, firsts[row] - start : lasts[row] - start] = weights[row, :count]
    return Block(first, last, start, stop, dense)


def _bilinear(x: Weights) -> Weights:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _bicubic(x: Weights) -> Weights:
    """Keys' cubic convolution with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: Weights) -> Weights:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


_FILTERS: Final[dict[str, tuple[float, Callable[[Weights], Weights]]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
