"""Boxes cut out of uint8 RGB arrays and brought to a size, by Pillow's antialiased filters, as float32 planes.

What Pillow does pixel by pixel is done here as products of matrices: of a few samples at a time, since each sample
of the result takes part of a few samples of the image only. That takes half the time (`docs/decisions/010`) and
comes out as what models eat. Rounding where Pillow rounds, the levels are Pillow's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from core.media import resize
from core.media.resize import Align, Box, Interpolation, Pixels, Size, inside

Floats = np.ndarray[Any, np.dtype[np.float32]]
Weights = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.int64]]

_CHANNELS: Final = 3

_SAMPLES: Final = range(6, 11)
"""Of the result, that a block may make: more read more of the image in vain, fewer are too many blocks."""
_SLACK: Final = 3
"""Samples of the image that a block may read in vain, for a whole row of blocks to be one product."""


class Blocks(NamedTuple):
    """`count` blocks side by side, of as many samples each, the first of which is sample `first` of the result.

    Block `k` is its `weights` [count, samples, taps] times samples of the source, the first of them
    `start + k * step`.
    So all of them are one call. A call gives the interpreter's lock away and has to get it back: two threads that
    make many short ones are no faster than one.
    """

    first: int
    start: int
    step: int
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
    for blocks in across:
        _multiply_across(rows, blocks, narrow)
    _whole(narrow)  # as Pillow keeps bytes between its passes
    result = np.empty((height, width * _CHANNELS), np.float32)
    for blocks in down:
        _multiply_down(narrow, blocks, result)
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


def _multiply_across(rows: Floats, blocks: Blocks, into: Floats) -> None:
    """`blocks` of `_pixel_blocks`, for every row."""
    count, taps, samples = blocks.weights.shape
    height, size = len(rows), rows.itemsize
    shape, strides = (count, height, taps), (blocks.step * size, rows.strides[0], size)
    windows = np.ndarray(shape, rows.dtype, rows, blocks.start * size, strides)
    made = into[:, blocks.first : blocks.first + count * samples].reshape(height, count, samples)
    np.matmul(windows, blocks.weights, out=made.transpose(1, 0, 2))


def _multiply_down(rows: Floats, blocks: Blocks, into: Floats) -> None:
    """`blocks` of rows."""
    count, samples, taps = blocks.weights.shape
    width, row = rows.shape[1], rows.strides[0]
    shape, strides = (count, taps, width), (blocks.step * row, row, rows.itemsize)
    windows = np.ndarray(shape, rows.dtype, rows, blocks.start * row, strides)
    made = into[blocks.first : blocks.first + count * samples].reshape(count, samples, width)
    np.matmul(blocks.weights, windows, out=made)


@lru_cache(maxsize=64)
def _pixel_blocks(
    source: int, target: int, start: float, stop: float, interpolation: Interpolation
) -> tuple[Blocks, ...]:
    """As `_blocks` for rows of pixels whose channels lie side by side, with weights to multiply from the right."""
    return tuple(
        Blocks(
            blocks.first * _CHANNELS,
            blocks.start * _CHANNELS,
            blocks.step * _CHANNELS,
            _for_each_channel(blocks.weights.transpose(0, 2, 1)),
        )
        for blocks in _blocks(source, target, start, stop, interpolation)
    )


def _for_each_channel(weights: Floats) -> Floats:
    """The Kronecker product of each block with the identity; `np.kron` takes ten times as long."""
    count, rows, columns = weights.shape
    wide = np.zeros((count, rows, _CHANNELS, columns, _CHANNELS), np.float32)
    for channel in range(_CHANNELS):
        wide[:, :, channel, :, channel] = weights
    return wide.reshape(count, rows * _CHANNELS, columns * _CHANNELS)


@lru_cache(maxsize=256)
def _blocks(
    source: int, target: int, start: float, stop: float, interpolation: Interpolation
) -> tuple[Blocks, ...]:
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
    samples, step = _even_steps(scale, target)
    whole = target - target % samples
    found = []
    for first, last in [*_alike(firsts[:whole], lasts[:whole], samples, step, source), (whole, target)]:
        size = min(samples, last - first)
        if size:
            found.append(_part(firsts[first:last], lasts[first:last], weights[first:last], size, step, first))
    return tuple(found)


def _even_steps(scale: float, target: int) -> tuple[int, int]:
    """How many samples a block makes, and how far the next one is: near to whole, where every block adds to it."""
    samples = min(_SAMPLES, key=lambda n: abs(round(n * scale) - n * scale) * (target / n))
    return samples, round(samples * scale)


def _alike(firsts: Places, lasts: Places, samples: int, step: int, source: int) -> Iterator[tuple[int, int]]:
    """Where rows of blocks begin and end whose windows lie at even steps, and are little larger than they must be.

    All inside of the source: at its edges, where the filter is cut, blocks may need a row of their own.
    """
    begins, ends = firsts[::samples], lasts[samples - 1 :: samples]
    slide = np.arange(len(begins)) * step
    most = int((ends - begins).max(initial=0)) + _SLACK
    lows, highs = (begins - slide).tolist(), (ends - slide).tolist()
    since = 0
    for block in range(1, len(lows) + 1):
        if block < len(lows):
            low, high = min(lows[since : block + 1]), max(highs[since : block + 1])
            inside = low + since * step >= 0 and high + block * step <= source
            if high - low <= most and inside:
                continue
        yield since * samples, block * samples
        since = block


def _part(firsts: Places, lasts: Places, weights: Weights, samples: int, step: int, first: int) -> Blocks:
    """Blocks whose windows lie at even steps; `first` is the place of their first sample."""
    slide = np.repeat(np.arange(len(firsts) // samples) * step, samples)
    start, taps = int((firsts - slide).min()), int((lasts - slide).max()) - int((firsts - slide).min())
    rows, columns = np.nonzero(np.arange(weights.shape[1]) < (lasts - firsts)[:, None])
    dense = np.zeros((len(firsts), taps), np.float32)
    dense[rows, columns + (firsts - slide - start)[rows]] = weights[rows, columns]
    return Blocks(first, start, step, dense.reshape(-1, samples, taps))


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
