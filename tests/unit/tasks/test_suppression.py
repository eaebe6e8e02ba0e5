from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.tasks.suppression import MAX_CANDIDATES, PAIRS, suppress

corner = st.integers(0, 20)
candidate = st.tuples(corner, corner, st.integers(0, 9), st.integers(0, 9), st.integers(0, 5), st.integers(0, 2))


def plain(rows: list[tuple[list[float], float, int]], threshold: float, limit: int) -> list[int]:
    """Non-maximum suppression as a textbook has it, one pair at a time."""
    kept: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: -rows[i][1]):
        (a1, b1, a2, b2), _, kind = rows[index]
        for other in kept:
            (c1, d1, c2, d2), _, same = rows[other]
            shared = max(0, min(a2, c2) - max(a1, c1)) * max(0, min(b2, d2) - max(b1, d1))
            union = (a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - shared
            if kind == same and shared > threshold * union:
                break
        else:
            kept.append(index)
    return kept[:limit]


@settings(max_examples=200, deadline=None)
@given(st.lists(candidate, max_size=30), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), st.integers(1, 30))
def test_as_a_textbook_does_it(found: list[tuple[int, ...]], threshold: float, limit: int) -> None:
    rows = [([x, y, x + w, y + h], score / 5, kind) for x, y, w, h, score, kind in found]
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores, classes = np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64)
    assert suppress(boxes, scores, classes, threshold, limit).tolist() == plain(rows, threshold, limit)


@pytest.mark.parametrize("limit", [1, 40, 1000])
def test_as_a_textbook_does_it_where_there_are_more_than_are_compared_at_a_time(limit: int) -> None:
    random = np.random.default_rng(3)
    starts, sides = random.integers(0, 60, (400, 2)), random.integers(1, 20, (400, 2))
    boxes, scores = np.hstack([starts, starts + sides]), random.permutation(400) / 400
    classes = random.integers(0, 3, 400)
    rows = [(box, score, kind) for box, score, kind in zip(boxes.tolist(), scores, classes, strict=True)]
    kept = suppress(boxes.astype(np.float32), scores.astype(np.float32), classes, 0.3, limit)
    assert len(boxes) ** 2 > PAIRS
    assert kept.tolist() == plain(rows, 0.3, limit)


def test_classes_do_not_suppress_each_other_however_far_boxes_reach() -> None:
    boxes = np.array([[-1e4, 0, 1e4, 10], [-1e4, 0, 1e4, 10], [-1e4, 0, 1e4, 9]], np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.8], np.float32), np.array([0, 79, 79]), 0.5, 10)
    assert kept.tolist() == [1, 0]


@pytest.mark.parametrize("count", [0, MAX_CANDIDATES + 500])
def test_nothing_and_very_much(count: int) -> None:
    boxes = (
        np.tile(np.array([[0, 0, 2, 2]], np.float32), (count, 1)) + np.arange(count, dtype=np.float32)[:, None] * 3
    )
    kept = suppress(boxes, np.ones(count, np.float32), np.zeros(count, np.int64), 0.5, 1000)
    assert kept.tolist() == list(range(min(count, 1000)))
