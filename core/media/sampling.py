"""Values between samples: what a model says of a few thousand places, at every pixel of a photo.

Bilinear, with pixels' centres at halves, as `torch.nn.functional.interpolate(align_corners=False)` has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, Any]

_TILE: Final = (128, 512)
"""Rows and columns that are looked at at a time: they fit a cache, and few planes are best there."""


class Axis(NamedTuple):
    """Of each wanted place along an axis: the samples before and after it, and how much of the latter it takes."""

    before: Indices
    after: Indices
    share: Floats

    def part(self, first: int, last: int) -> Axis:
        """The places `first` to `last`."""
        return Axis(self.before[first:last], self.after[first:last], self.share[first:last])


def axis(places: np.ndarray[Any, Any], length: int) -> Axis:
    """Places along `length` samples, sample i at place i; those outside take the sample at the edge."""
    inside = np.clip(places, 0, length - 1)
    before = np.floor(inside).astype(np.int64)
    return Axis(before, np.minimum(before + 1, length - 1), (inside - before).astype(np.float32))


def nearest(places: np.ndarray[Any, Any], length: int) -> Indices:
    """The sample next to each place, the later one where two are as near."""
    found: Indices = np.clip(np.floor(places + 0.5), 0, length - 1).astype(np.int64)
    return found


def bilinear(plane: Floats, rows: Axis, columns: Axis) -> Floats:
    """`plane` [height, width] at all pairs of places: [rows, columns]."""
    top, foot = int(rows.before.min()), int(rows.after.max()) + 1
    needed = plane[top:foot]
    wide = needed[:, columns.before] * (1 - columns.share) + needed[:, columns.after] * columns.share
    down = rows.share[:, None]
    values: Floats = wide[rows.before - top] * (1 - down) + wide[rows.after - top] * down
    return values


def above(plane: Floats, rows: Axis, columns: Axis, least: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where `plane` [height, width] reaches `least`, at all pairs of places: bool [rows, columns]."""
    reached = np.empty((len(rows.before), len(columns.before)), np.bool_)
    for tile, down, across in _tiles(rows, columns):
        np.greater_equal(bilinear(plane, down, across), least, out=reached[tile])
    return reached


def best_planes(planes: Floats, rows: Axis, columns: Axis) -> Indices:
    """Which of `planes` [n, height, width] is the highest at each pair of places: numbers [rows, columns]."""
    best = np.empty((len(rows.before), len(columns.before)), np.uint8 if len(planes) <= 256 else np.uint16)
    for tile, down, across in _tiles(rows, columns):
        _fill_best(best[tile], planes, down, across)
    return best


def _tiles(rows: Axis, columns: Axis) -> Iterator[tuple[tuple[slice, slice], Axis, Axis]]:
    """The result in tiles, and the places of each; nothing where there are none."""
    for top in range(0, len(rows.before), _TILE[0]):
        for left in range(0, len(columns.before), _TILE[1]):
            foot, right = top + _TILE[0], left + _TILE[1]
            yield (slice(top, foot), slice(left, right)), rows.part(top, foot), columns.part(left, right)


def _fill_best(best: Indices, planes: Floats, rows: Axis, columns: Axis) -> None:
    touched = (slice(int(at.before.min()), int(at.after.max()) + 1) for at in (rows, columns))
    able = _able(planes[:, next(touched), next(touched)])
    best[...] = able[0]
    if len(able) == 1:
        return
    highest = bilinear(planes[able[0]], rows, columns)
    for index in able[1:]:
        values = bilinear(planes[index], rows, columns)
        np.copyto(best, index, where=values > highest)
        np.fmax(highest, values, out=highest)


def _able(planes: Floats) -> list[int]:
    """The planes that can be the highest somewhere: in a cell of four samples they reach what all others keep.

    A value within a cell lies between the cell's lowest and highest sample.
    """
    low = high = planes
    for along in (1, 2):
        if planes.shape[along] > 1:
            low, high = (
                pick(
                    array.take(range(array.shape[along] - 1), along),
                    array.take(range(1, array.shape[along]), along),
                )
                for pick, array in ((np.minimum, low), (np.maximum, high))
            )
    able: list[int] = np.flatnonzero((high >= low.max(axis=0)).any(axis=(1, 2))).tolist()
    return able or [0]
