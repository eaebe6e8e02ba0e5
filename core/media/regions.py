"""Connected regions of a mask, and the smallest rectangle, turned as it may be, around each."""

from __future__ import annotations

from typing import Any

import numpy as np

Points = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def regions(mask: Mask) -> list[Points]:
    """For each region of pixels that touch, by a corner too, the ends of its runs in each row: [n, 2] of (x, y).

    Runs of neighbouring rows that touch are joined (union-find over runs: Rosenfeld and Pfaltz, "Sequential
    Operations in Digital Picture Processing", 1966). Regions come in the order of their first pixels.
    """
    rows, starts, ends = _runs(mask)
    if not len(rows):
        return []
    parents = list(range(len(rows)))
    for above, below in _touching(rows, starts, ends):
        one, other = _root(parents, above), _root(parents, below)
        if one != other:
            parents[max(one, other)] = min(one, other)
    labels = np.array([_root(parents, i) for i in range(len(rows))])
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return [_corners(rows, starts, ends, group) for group in np.split(order, cuts)]


def _runs(mask: Mask) -> tuple[Any, Any, Any]:
    """Row, first and last column of every run of true pixels, row by row."""
    height, width = mask.shape
    framed = np.zeros((height, width + 2), np.int8)
    framed[:, 1:-1] = mask
    steps = np.diff(framed, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return rows, starts, ends - 1


def _touching(rows: Any, starts: Any, ends: Any) -> list[tuple[int, int]]:
    """Pairs of runs in rows below each other that touch."""
    pairs = []
    first_of_row = np.searchsorted(rows, np.arange(rows[-1] + 2))
    for row in range(1, int(rows[-1]) + 1):
        i, above_end = int(first_of_row[row - 1]), int(first_of_row[row])
        j, below_end = above_end, int(first_of_row[row + 1])
        while i < above_end and j < below_end:
            if starts[i] <= ends[j] + 1 and starts[j] <= ends[i] + 1:
                pairs.append((i, j))
            if ends[i] < ends[j]:
                i += 1
            else:
                j += 1
    return pairs


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


def _corners(rows: Any, starts: Any, ends: Any, group: Any) -> Points:
    left = np.stack([starts[group], rows[group]], axis=1)
    right = np.stack([ends[group], rows[group]], axis=1)
    points: Points = np.concatenate([left, right]).astype(np.float64)
    return points


def smallest_rectangle(points: Points) -> tuple[Points, float, float]:
    """The corners [4, 2] of the smallest rectangle around points [n, 2], and its two sides.

    One of its sides lies on the convex hull (Freeman and Shapira, "Determining the Minimum-Area Encasing
    Rectangle for an Arbitrary Closed Curve", 1975), so the hull's directions are all that are tried.
    """
    hull = _hull(points)
    edges = np.roll(hull, -1, axis=0) - hull
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    if not (lengths > 0).any():
        return np.repeat(hull[:1], 4, axis=0), 0.0, 0.0
    along = edges[lengths > 0] / lengths[lengths > 0, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    u, v = hull @ along.T, hull @ across.T
    sides = u.max(axis=0) - u.min(axis=0), v.max(axis=0) - v.min(axis=0)
    best = int(np.argmin(sides[0] * sides[1]))
    low_u, high_u, low_v, high_v = u[:, best].min(), u[:, best].max(), v[:, best].min(), v[:, best].max()
    corners = np.array([[low_u, low_v], [high_u, low_v], [high_u, high_v], [low_u, high_v]])
    placed: Points = corners @ np.stack([along[best], across[best]])
    return placed, float(sides[0][best]), float(sides[1][best])


def grown(corners: Points, by: float) -> Points:
    """A rectangle whose every side is moved outwards by so much; one without extent stays."""
    centre = corners.mean(axis=0)
    u, v = _unit(corners[1] - corners[0]), _unit(corners[3] - corners[0])
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    half_u = np.hypot(*(corners[1] - corners[0])) / 2 + by
    half_v = np.hypot(*(corners[3] - corners[0])) / 2 + by
    placed: Points = centre + signs[:, :1] * half_u * u + signs[:, 1:] * half_v * v
    return placed


def from_top_left(corners: Points) -> Points:
    """The corners clockwise from the top left one, as an image has them (y grows downwards)."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    top_left, bottom_left = left[np.argsort(left[:, 1], kind="stable")]
    top_right, bottom_right = right[np.argsort(right[:, 1], kind="stable")]
    return np.stack([top_left, top_right, bottom_right, bottom_left])


def mean_within(values: np.ndarray[Any, Any], corners: Points) -> float:
    """The mean of the values [height, width] whose pixel lies in the rectangle, its edge among them."""
    height, width = values.shape
    x1, y1 = np.floor(corners.min(axis=0)).astype(int).clip(0, [width - 1, height - 1])
    x2, y2 = np.ceil(corners.max(axis=0)).astype(int).clip(0, [width - 1, height - 1])
    ys, xs = np.mgrid[y1 : y2 + 1, x1 : x2 + 1]
    inside = np.ones(ys.shape, np.bool_)
    centre = corners.mean(axis=0)
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.array([one[1] - other[1], other[0] - one[0]])
        side = (xs - one[0]) * normal[0] + (ys - one[1]) * normal[1]
        inside &= side * np.sign((centre - one) @ normal) >= -1e-6 * (1 + np.abs(normal).sum())
    part = values[y1 : y2 + 1, x1 : x2 + 1]
    return float(part[inside].mean()) if inside.any() else float(part.mean())


def _unit(vector: Points) -> Points:
    length = float(np.hypot(*vector))
    unit: Points = vector / length if length else np.zeros(2)
    return unit


def _hull(points: Points) -> Points:
    """The convex hull, in order (Andrew, "Another efficient algorithm for convex hulls …", 1979)."""
    ordered = np.unique(points, axis=0).tolist()
    if len(ordered) < 3:
        return np.array(ordered, np.float64)
    return np.array(_chain(ordered)[:-1] + _chain(ordered[::-1])[:-1], np.float64)


def _chain(points: list[list[float]]) -> list[list[float]]:
    chain: list[list[float]] = []
    for x, y in points:
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2], chain[-1]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            chain.pop()
        chain.append([x, y])
    return chain
