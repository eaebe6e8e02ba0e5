"""Non-maximum suppression: of boxes that show the same thing, the best one stays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Corners = np.ndarray[Any, np.dtype[np.float64]]

MAX_CANDIDATES: Final = 10_000
"""Of the best scores, that are looked at: more would only cost time."""
PAIRS: Final = 4096
"""So many are compared at a time, or one box with all: each is work in vain where the first of it goes."""


def suppress(boxes: Floats, scores: Floats, classes: Indices, threshold: float, limit: int) -> Indices:
    """Which of the boxes [n, 4] (x1, y1, x2, y2) stay, best first, at most `limit`.

    Greedy: the best box stays, and whatever of its class overlaps it by more than `threshold` (intersection over
    union) goes; then the best of the others, and so on. Equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    corners = boxes[order].astype(np.float64)
    if len(order):  # classes are moved apart, so that none overlaps another
        apart = corners.max() - corners.min() + 1.0
        corners += (classes[order] * apart)[:, None]
    areas = _area(corners[:, :2], corners[:, 2:])
    waiting = np.arange(len(order))
    kept: list[int] = []
    while len(waiting) and len(kept) < limit:
        first = waiting[: max(1, PAIRS // len(waiting))]
        shared = _shared(corners[first], corners[waiting])
        overlaps = shared > threshold * (areas[first, None] + areas[waiting] - shared)
        gone = np.zeros(len(waiting), bool)
        for place, index in enumerate(first.tolist()):
            if not gone[place]:
                kept.append(index)
                gone |= overlaps[place]
        gone[: len(first)] = True  # kept, or not: no more of them
        waiting = waiting[~gone]
    stayed: Indices = order[kept[:limit]].astype(np.int64)
    return stayed


def _shared(some: Corners, others: Corners) -> Corners:
    """The area that each of `some` boxes [n, 4] shares with each of the others [m, 4]: [n, m]."""
    first = np.maximum(some[:, None, :2], others[:, :2])
    return _area(first, np.minimum(some[:, None, 2:], others[:, 2:]))


def _area(first: Corners, last: Corners) -> Corners:
    sides = np.maximum(last - first, 0.0)
    area: Corners = sides[..., 0] * sides[..., 1]
    return area
