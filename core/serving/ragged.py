"""Items of different length in one batch: which of them run together, and how they are padded.

A text of 5 tokens that runs beside one of 100 costs as much as that one. So items of like length run together,
and a batch is bounded by its padded size: items times the longest of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.tasks.base import Padding

Tensors = Mapping[str, np.ndarray[Any, Any]]
Outputs = dict[str, np.ndarray[Any, Any]]

MOST_PADDING = 0.2
"""The part of a batch that may be padding, where that is more than SLACK."""
SLACK = 16
"""Padding that costs less than another run of the engine, in units of length."""
WINDOW = 1024
"""As many of those that wait are looked at for one batch, the oldest first."""
CPU_TOKENS = 4096
DEVICE_TOKENS = 16384
"""What a batch may hold where nobody says, its padding counted, on the processor and on an accelerator."""


class Room(NamedTuple):
    """What a batch may hold: items, and units of length, padding counted."""

    items: int
    tokens: int


class Load(NamedTuple):
    """What a batch holds: items, the longest of them, and the sum of their lengths."""

    items: int = 0
    longest: int = 0
    total: int = 0

    def with_one(self, length: int) -> Load:
        """The same and one more."""
        return Load(self.items + 1, max(self.longest, length), self.total + length)

    def fits(self, room: Room) -> bool:
        """Whether it is within its room, and not too much of it is padding. One item always is."""
        if self.items == 1:
            return True
        padded = self.items * self.longest
        if self.items > room.items or padded > room.tokens:
            return False
        return padded - self.total <= max(SLACK, padded * MOST_PADDING)


def compose(lengths: Sequence[int], load: Load, room: Room) -> tuple[list[int], Load]:
    """Choose from items that wait, the oldest first, those that join a batch; returns their places and the load.

    An empty batch begins with the oldest, so that none waits for its like for ever. Then come those nearest in
    length, the side first on which one more costs less padding.
    """
    chosen: list[int] = []
    groups: dict[int, list[int]] = {}
    for place in range(len(lengths) - 1, -1, -1):  # the oldest of each length last, to be popped first
        groups.setdefault(lengths[place], []).append(place)
    if lengths and not load.items:
        chosen.append(groups[lengths[0]].pop())
        load = load.with_one(lengths[0])
    sizes = sorted(groups)
    above = bisect_right(sizes, load.longest)
    below = above - 1
    while below >= 0 or above < len(sizes):
        up = below < 0 or (above < len(sizes) and _longer_is_cheaper(sizes[below], sizes[above], load))
        size = sizes[above if up else below]
        while groups[size] and (more := load.with_one(size)).fits(room):
            chosen.append(groups[size].pop())
            load = more
        if groups[size]:  # all that are further away fit even less
            above, below = (len(sizes), below) if up else (above, -1)
        else:
            above, below = above + up, below - (not up)
    return chosen, load


def _longer_is_cheaper(shorter: int, longer: int, load: Load) -> bool:
    return (longer - load.longest) * load.items < load.longest - shorter


def shape_of(inputs: Tensors, padding: Mapping[str, Padding]) -> object:
    """What items must have in common to share a batch: names, dtypes, inner shapes but for the padded axis."""
    return tuple([(name, a.dtype.num, _open(a.shape, padding.get(name))) for name, a in inputs.items()])


def _open(shape: tuple[int, ...], padding: Padding | None) -> tuple[object, ...]:
    if padding is None:
        return shape[1:]
    return (*shape[1 : padding.axis], padding, *shape[padding.axis + 1 :])


def join(parts: Sequence[Tensors], padding: Mapping[str, Padding]) -> Outputs:
    """One batch of all parts, each padded to the longest."""
    return {name: _join([part[name] for part in parts], padding.get(name)) for name in parts[0]}


def _join(arrays: Sequence[np.ndarray[Any, Any]], padding: Padding | None) -> np.ndarray[Any, Any]:
    if padding is None:
        return np.concatenate(arrays)
    first, axis = arrays[0], padding.axis
    longest = max(array.shape[axis] for array in arrays)
    items = sum(len(array) for array in arrays)
    shape = (items, *first.shape[1:axis], longest, *first.shape[axis + 1 :])
    joined = np.full(shape, padding.value, first.dtype)
    start = 0
    for array in arrays:
        end = start + len(array)
        joined[(slice(start, end), *[slice(size) for size in array.shape[1:]])] = array
        start = end
    return joined


def join_outputs(parts: Sequence[Tensors]) -> Outputs:
    """The outputs of items that ran in different batches, first axis items; what is shorter ends with zeros."""
    return {name: _stack([part[name] for part in parts]) for name in parts[0]}


def _stack(arrays: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    if len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    inner = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    stacked = np.zeros((sum(len(array) for array in arrays), *inner), arrays[0].dtype)
    start = 0
    for array in arrays:
        stacked[(slice(start, start + len(array)), *[slice(size) for size in array.shape[1:]])] = array
        start += len(array)
    return stacked
