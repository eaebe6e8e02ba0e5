from __future__ import annotations

import math

import numpy as np
import pytest

from core.media import regions


def mask(*rows: str) -> regions.Mask:
    return np.array([[sign == "#" for sign in row] for row in rows])


def pixels(points: regions.Points) -> set[tuple[int, int]]:
    return {(int(x), int(y)) for x, y in points}


def test_pixels_that_touch_are_one_region_also_by_a_corner() -> None:
    found = regions.regions(
        mask(
            "##...#",
            "..#..#",
            ".#...#",
            "......",
            "#.##.#",
            "###..#",
        )
    )
    assert [pixels(one) for one in found] == [
        {(0, 0), (1, 0), (2, 1), (1, 2)},
        {(5, 0), (5, 1), (5, 2)},
        {(0, 4), (2, 4), (3, 4), (0, 5), (2, 5)},
        {(5, 4), (5, 5)},
    ]


def test_arms_that_meet_below_are_one_region() -> None:
    (one,) = regions.regions(mask("#.#.#", "#.#.#", "#####"))
    assert pixels(one) == {(0, 0), (2, 0), (4, 0), (0, 1), (2, 1), (4, 1), (0, 2), (4, 2)}


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (4, 5)])
def test_an_empty_mask_has_no_regions(shape: tuple[int, int]) -> None:
    assert regions.regions(np.zeros(shape, np.bool_)) == []


def test_as_many_regions_as_a_slow_search_finds() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        field = chance.random((30, 40)) < 0.35
        assert len(regions.regions(field)) == _count(field)


def _count(field: regions.Mask) -> int:
    left = {(int(y), int(x)) for y, x in np.argwhere(field)}
    count = 0
    while left:
        count += 1
        waiting = [left.pop()]
        while waiting:
            y, x = waiting.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
    return count


@pytest.mark.parametrize("degrees", [0, 7, 30, 45, 89, 135])
def test_the_smallest_rectangle_is_found_however_it_is_turned(degrees: float) -> None:
    angle = math.radians(degrees)
    u, v = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    corners = np.array([np.array([50, 40]) + a * 30 * u + b * 8 * v for a in (-1, 1) for b in (-1, 1)])
    inside = np.array([[50.0, 40.0], [50 + 3 * u[0], 40 + 3 * u[1]]])
    placed, *sides = regions.smallest_rectangle(np.concatenate([corners, inside]))
    assert sorted(sides) == pytest.approx([16, 60])
    assert sorted(map(tuple, np.round(placed, 6))) == sorted(map(tuple, np.round(corners, 6)))
    grown, *sides = regions.smallest_rectangle(regions.grown(placed, 5))
    assert sorted(sides) == pytest.approx([26, 70])
    assert grown.mean(axis=0) == pytest.approx([50, 40])


def test_a_point_and_a_line_have_rectangles_too() -> None:
    assert regions.smallest_rectangle(np.array([[3.0, 4.0]]))[1:] == (0, 0)
    assert sorted(regions.smallest_rectangle(np.array([[0.0, 0.0], [3.0, 4.0]]))[1:]) == pytest.approx([0, 5])
    assert regions.grown(np.repeat([[3.0, 4.0]], 4, axis=0), 1).shape == (4, 2)


def test_corners_are_told_clockwise_from_the_top_left() -> None:
    corners = np.array([[10.0, 5.0], [0.0, 5.0], [0.0, 0.0], [10.0, 0.0]])
    assert regions.from_top_left(corners).tolist() == [[0, 0], [10, 0], [10, 5], [0, 5]]


def test_the_mean_is_that_of_the_pixels_within() -> None:
    values = np.zeros((20, 30))
    values[5:10, 10:20] = 1
    box = np.array([[10.0, 5.0], [19.0, 5.0], [19.0, 9.0], [10.0, 9.0]])
    assert regions.mean_within(values, box) == 1
    assert regions.mean_within(values, box[::-1]) == 1
    assert regions.mean_within(values, box + np.array([5, 0])) == pytest.approx(0.5)
    diamond = np.array([[14.0, 4.0], [17.0, 7.0], [14.0, 10.0], [11.0, 7.0]])
    assert 0.8 < regions.mean_within(values, diamond) < 1
    assert regions.mean_within(values, box + 100) == 0
