"""Boxes cut out of uint8 RGB arrays and brought to a size, by Pillow's antialiased filters, as float32 planes.

What Pillow does pixel by pixel is done here as products of matrices: of a few samples at a time, since each sample
of the result takes part of a few samples of the image only. That takes half the time (`docs/decisions/010`) and
comes out as what models eat. Rounding where Pillow rounds, the levels are Pillow's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from core.media import resize
from core.media.resize import Align, Box, Interpolation, Pixels, Size, inside

Floats = np.ndarray[Any, np.dtype[np.float32]]
Weights = np.ndarray[Any, np.dtype[np.float64]]

_CHANNELS: Final = 3

SAMPLES: Final = 8
"""Of the result, made at a time: more read more of the image in vain, fewer are too many calls."""


class Block(NamedTuple):
    """Samples `first` to `last` of the result are `weights` times the samples `start` to `stop` of the source."""

    first: int
    last: int
    start: int
    stop: int
    weights: Floats


def resample(pixels: Pixels, box: Box, size: Size, interpolation: Interpolation = "bicubic") -> Floats:
    """The box, in pixels of `pixels` [height, width, 3], resized to `size`: [3, height, width], whole 0 to 255.

    What Pillow answers, but for a level here and there. Not for `nearest`.
    """
    height, width = size
    if box[2] - box[0] <= width or box[3] - box[1] <= height:  # little to do: not worth the many calls
        return resize.resample(pixels, box, size, interpolation).transpose(2, 0, 1).astype(np.float32)
    if (box[3] - box[1]) * width > (box[2] - box[0]) * height:  # Pillow begins with the axis that shrinks more
        turned = box[1], box[0], box[3], box[2]
        return resample(pixels.transpose(1, 0, 2), turned, (width, height), interpolation).transpose(0, 2, 1)
    left, top = math.floor(box[0]), math.floor(box[1])
    part = pixels[top : math.ceil(box[3]), left : math.ceil(box[2])]
    across = _pixel_blocks(part.shape[1], width, box[0] - left, box[2] - left, interpolation)
    down = _blocks(part.shape[0], height, box[1] - top, box[3] - top, interpolation)
    rows = part.astype(np.float32, order="C").reshape(part.shape[0], -1)
    narrow = np.empty((part.shape[0], width * _CHANNELS), np.float32)
    for block in across:
        np.matmul(rows[:, block.start : block.stop], block.weights, out=narrow[:, block.first : block.last])
    _whole(narrow)  # as Pillow keeps bytes between its passes
    result = np.empty((height, width * _CHANNELS), np.float32)
    for block in down:
        np.matmul(block.weights, narrow[block.start : block.stop], out=result[block.first : block.last])
    return _whole(result).reshape(height, width, _CHANNELS).transpose(2, 0, 1)


def letterbox(
    pixels: Pixels,
    box: Box,
    size: Size,
    interpolation: Interpolation = "bicubic",
    fill: int = 114,
    align: Align = "center",
) -> Floats:
    """The box resized to fit inside `size`, proportions kept, on grey `fill`; as `resample` otherwise."""
    inner, top, left = inside(box, size, align)
    canvas = np.full((3, *size), fill, np.float32)
    canvas[:, top : top + inner[0], left : left + inner[1]] = resample(pixels, box, inner, interpolation)
    return canvas


def _whole(levels: Floats) -> Floats:
    """Rounded in place, halves upwards; the cubic filters overshoot at edges, and are cut off there."""
    levels += 0.5
    np.floor(levels, out=levels)
    return np.clip(levels, 0, 255, out=levels)


@lru_cache(maxsize=64)
def _pixel_blocks(
    source: int, target: int, start: float, stop: float, interpolation: Interpolation
) -> tuple[Block, ...]:
    """As `_blocks` for rows of pixels whose channels lie side by side, with weights to multiply from the right."""
    return tuple(
        Block(
            block.first * _CHANNELS,
            block.last * _CHANNELS,
            block.start * _CHANNELS,
            block.stop * _CHANNELS,
            _for_each_channel(block.weights.T),
        )
        for block in _blocks(source, target, start, stop, interpolation)
    )


def _for_each_channel(weights: Floats) -> Floats:
    """The Kronecker product with the identity; `np.kron` takes ten times as long."""
    rows, columns = weights.shape
    wide = np.zeros((rows, _CHANNELS, columns, _CHANNELS), np.float32)
    for channel in range(_CHANNELS):
        wide[:, channel, :, channel] = weights
    return wide.reshape(rows * _CHANNELS, columns * _CHANNELS)


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
    # Every block's rows from its own first column on, so that this is no larger than the blocks are.
    starts = firsts[np.arange(target) // SAMPLES * SAMPLES]
    rows, taps = np.nonzero(places < lasts[:, None])
    dense = np.zeros((target, int((lasts - starts).max())), np.float32)
    dense[rows, places[rows, taps] - starts[rows]] = weights[rows, taps]
    return tuple(_block(first, firsts, lasts, dense) for first in range(0, target, SAMPLES))


def _block(first: int, firsts: Any, lasts: Any, dense: Floats) -> Block:
    last = min(first + SAMPLES, len(firsts))
    start, stop = int(firsts[first]), int(lasts[last - 1])
    return Block(first, last, start, stop, dense[first:last, : stop - start].copy())


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
