"""Non-maximum suppression: of boxes that show the same thing, the best one stays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

MAX_CANDIDATES: Final = 10_000
"""Of the best scores, that are looked at: more would only cost time."""


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
    areas = _area(corners)
    waiting = np.arange(len(order))
    kept: list[int] = []
    while len(waiting) and len(kept) < limit:
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        shared = _area(_intersections(corners[best], corners[waiting]))
        union = areas[best] + areas[waiting] - shared
        waiting = waiting[shared <= threshold * union]
    stayed: Indices = order[kept].astype(np.int64)
    return stayed


def _intersections(one: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    first = np.maximum(one[:2], others[:, :2])
    last = np.minimum(one[2:], others[:, 2:])
    return np.concatenate([first, last], axis=1)


def _area(corners: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    sides = (corners[:, 2:] - corners[:, :2]).clip(0)
    area: np.ndarray[Any, Any] = sides[:, 0] * sides[:, 1]
    return area
