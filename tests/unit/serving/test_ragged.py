"""Items of different length: who runs with whom, and how they are padded and told apart again."""

from __future__ import annotations

import random

import numpy as np
import pytest

from core.serving.ragged import SLACK, Load, Room, compose, join, join_outputs, shape_of
from core.tasks.base import Padding, Prepared

WIDE = Room(32, 100_000)


@pytest.mark.parametrize(
    ("lengths", "room", "expected"),
    [
        ([], WIDE, []),
        ([500], Room(8, 100), [0]),  # larger than the budget: alone
        ([50, 50, 50], Room(2, 1000), [0, 1]),
        ([50, 50, 50], Room(8, 100), [0, 1]),
        ([5, 100, 5, 101, 6], WIDE, [0, 2, 4]),  # the short ones do not pay for the long ones
        ([100, 5, 101, 5, 6, 99], WIDE, [0, 2, 5]),
        ([64, 512, 512, 512], WIDE, [0]),  # the oldest goes first, even alone
        ([1, 2, 3, 4], WIDE, [0, 1, 2, 3]),  # so little padding costs less than another run
        ([100, 90, 110, 40], Room(3, 1000), [0, 1, 2]),
    ],
)
def test_like_runs_with_like_and_the_oldest_always(lengths: list[int], room: Room, expected: list[int]) -> None:
    chosen, load = compose(lengths, Load(), room)
    assert sorted(chosen) == expected
    if chosen:
        assert chosen[0] == 0
        assert load == Load(len(chosen), max(lengths[i] for i in chosen), sum(lengths[i] for i in chosen))


def test_a_batch_is_filled_from_a_second_lane() -> None:
    _, load = compose([30], Load(), WIDE)
    chosen, load = compose([200, 31, 29], load, WIDE)
    assert sorted(chosen) == [1, 2]
    assert load == Load(3, 31, 90)


def test_budget_and_padding_hold_for_any_mixture_and_all_get_their_turn() -> None:
    rng = random.Random(4)
    room = Room(16, 600)
    for _ in range(200):
        waiting = [rng.randint(1, 300) for _ in range(rng.randint(1, 60))]
        while waiting:
            before = len(waiting)
            chosen, load = compose(waiting, Load(), room)
            lengths = [waiting[i] for i in chosen]
            assert 0 in chosen
            assert len(set(chosen)) == len(chosen) <= room.items
            padded = len(lengths) * max(lengths)
            assert len(lengths) == 1 or padded <= room.tokens
            assert padded - sum(lengths) <= max(SLACK, padded / 5)
            waiting = [length for i, length in enumerate(waiting) if i not in set(chosen)]
            assert len(waiting) < before
            assert load.items == len(chosen)


def test_items_share_a_lane_whatever_their_length_but_not_their_padding() -> None:
    short, long = {"x": np.zeros((1, 3), np.int64)}, {"x": np.zeros((1, 9), np.int64)}
    assert shape_of(short, {"x": Padding(0)}) == shape_of(long, {"x": Padding(0)})
    assert shape_of(short, {"x": Padding(0)}) != shape_of(long, {"x": Padding(1)})
    assert shape_of(short, {"x": Padding(0)}) != shape_of({"x": np.zeros((1, 9), np.int32)}, {"x": Padding(0)})
    assert shape_of(short, {}) != shape_of(long, {})
    last = Padding(0, axis=2)
    mel = [{"x": np.zeros((1, 80, n), np.float32)} for n in (5, 7)]
    assert shape_of(mel[0], {"x": last}) == shape_of(mel[1], {"x": last})
    assert shape_of(mel[0], {"x": last}) != shape_of({"x": np.zeros((1, 40, 5), np.float32)}, {"x": last})


@pytest.mark.parametrize("axis", [1, 2])
def test_items_are_cut_apart_and_joined_again(axis: int) -> None:
    padding = {"x": Padding(-1, axis)}
    whole = np.arange(3 * 4 * 4, dtype=np.int64).reshape(3, 4, 4)
    lengths = [2, 4, 1]
    for place, length in enumerate(lengths):
        np.moveaxis(whole[place], axis - 1, 0)[length:] = -1
    flag = np.arange(3)
    parts = Prepared({"x": whole, "flag": flag}, [None] * 3, lengths, padding).each()
    assert [part["x"].shape[axis] for part in parts] == lengths
    joined = join(parts, padding)
    assert joined["x"].dtype == np.int64
    np.testing.assert_array_equal(joined["x"], whole)
    np.testing.assert_array_equal(joined["flag"], flag)


def test_outputs_of_several_batches_become_one_tensor() -> None:
    parts = [{"y": np.ones((1, 2, 3)), "z": np.ones((1, 3))}, {"y": np.ones((1, 4, 3)), "z": np.zeros((1, 3))}]
    joined = join_outputs(parts)
    assert joined["y"].shape == (2, 4, 3)
    assert joined["z"].shape == (2, 3)
    assert joined["y"][0, 2:].sum() == 0
    assert joined["y"].sum() == 6 + 12
