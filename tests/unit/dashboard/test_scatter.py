"""Dots lie where logarithms put them, and the grid has round numbers."""

from __future__ import annotations

import pytest

from app.dashboard.scatter import axes


def test_twice_as_much_is_as_far_away_everywhere() -> None:
    across, up = axes([(1, 10), (2, 20), (4, 40)])
    assert across.at(2) - across.at(1) == pytest.approx(across.at(4) - across.at(2), abs=0.2)
    assert up.at(10) > up.at(40)  # up is up


@pytest.mark.parametrize("points", [[], [(3, 3)], [(0.001, 1e9), (50_000, 2e9)], [(7, 7), (7.1, 7.1)]])
def test_all_points_and_ticks_are_inside(points: list[tuple[float, float]]) -> None:
    for axis, values in zip(axes(points), zip(*points, strict=True) if points else ((), ()), strict=True):
        low, high = sorted((axis.start, axis.end))
        assert all(low <= axis.at(value) <= high for value in values)
        assert all(low <= tick.at <= high for tick in axis.ticks)
        assert len(axis.ticks) <= 17


def test_ticks_are_round() -> None:
    across, _ = axes([(1, 1), (40, 40)])
    assert [tick.value for tick in across.ticks] == [1, 2, 5, 10, 20, 50]
