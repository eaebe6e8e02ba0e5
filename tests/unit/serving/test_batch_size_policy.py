"""How large batches are worth being, from what they have cost."""

from __future__ import annotations

import pytest

from core.serving.batch_size_policy import EXPLORE_EVERY, FADE, TOLERANCE, TRY_EVERY, BatchCosts, best_size, why


@pytest.mark.parametrize(
    ("costs", "size"),
    [
        ({}, 32),
        ({1: 5.0}, 32),
        ({1: 1.0, 8: 2.0}, 1),
        ({1: 2.0, 8: 1.0}, 16),
        ({1: 2.0, 16: 1.0}, 32),
        ({1: 2.0, 32: 1.0}, 32),
        ({1: 1.0, 8: 1.0 - TOLERANCE / 2}, 1),
        ({1: 1.0, 8: 1.0 / (1 + 2 * TOLERANCE)}, 16),
        ({1: 2.0, 4: 1.0, 16: 1.5}, 4),
        ({1: 2.0, 4: 1.01, 8: 1.0, 16: 1.5}, 4),
        ({1: 1.0, 64: 0.1}, 32),
        ({1: 2.0, 2: 1.0, 64: 0.1}, 4),
    ],
)
def test_the_smallest_of_the_cheapest_sizes(costs: dict[int, float], size: int) -> None:
    assert best_size(costs, 32) == size


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        ({1: 2.0, 8: 1.0}, None),
        ({1: 1.0}, None),
        (
            {1: 1.0, 8: 1.8},
            "batches of 8 take 1.8 times as long for each item as batches of 1 on this machine, "
            "so at most 1 is taken",
        ),
        (
            {1: 3.0, 2: 1.0, 4: 1.5, 8: 1.2},
            "batches of 4 take 1.5 times as long for each item as batches of 2 on "
            "this machine, so at most 2 are taken",
        ),
        (
            {2: 1.0, 8: 1.0},
            "batches of more than 2 are no faster for each item on this machine, so at most 2 are taken",
        ),
    ],
)
def test_the_reason_is_told(costs: dict[int, float], says: str | None) -> None:
    assert why(costs, 32) == says


def test_it_learns_from_batches() -> None:
    costs = BatchCosts(32)
    assert (costs.limit, costs.why()) == (32, None)
    costs.observe(1, 1.0)
    assert costs.limit == 32
    costs.observe(8, 16.0)
    assert costs.limit == 1
    assert costs.why() is not None
    costs.observe(8, 4.0)
    assert (costs.limit, costs.why()) == (16, None)
    costs.observe(16, 4.0)
    assert (costs.limit, costs.why()) == (32, None)


@pytest.mark.parametrize(
    ("items", "same", "next_items"), [(1, 1, 2), (2, 2, 3), (3, 3, 4), (4, 7, 8), (8, 15, 16), (16, 31, 32)]
)
def test_sizes_of_one_class_share_their_cost(items: int, same: int, next_items: int) -> None:
    costs = BatchCosts(64)
    costs.observe(items, 1.0 * items)
    costs.observe(same, 2.0 * same)
    assert costs.limit == 64
    costs.observe(next_items, 2.0 * next_items)
    assert costs.limit == items


def test_a_slow_batch_is_mostly_another_s_fault_but_not_for_ever() -> None:
    costs = BatchCosts(8)
    costs.observe(1, 1.0)
    costs.observe(8, 4.0)
    costs.observe(8, 80.0)
    assert costs.limit == 8, "one slow batch proves nothing"
    slow = 0
    while costs.limit == 8:
        costs.observe(8, 80.0)
        slow += 1
        assert slow < 200
    assert slow > 10
    assert 0.5 * FADE ** (slow + 1) == pytest.approx(1.0, rel=0.1), "it took as long as the fading says"


def test_one_batch_in_many_may_be_twice_as_large() -> None:
    costs = BatchCosts(8)
    costs.observe(1, 1.0)
    costs.observe(8, 16.0)
    limits = []
    for _ in range(2 * EXPLORE_EVERY):
        costs.observe(1, 1.0)
        limits.append(costs.limit)
    assert limits.count(2) == 2
    assert limits.count(1) == len(limits) - 2


def test_siblings_are_run_as_costs_least_and_now_and_then_otherwise() -> None:
    costs = BatchCosts(16)
    assert costs.together(16) == 16  # nothing is known
    costs = BatchCosts(16)
    for items, seconds in ((1, 1.0), (4, 3.88), (8, 8.0)):
        costs.observe(items, seconds)
    assert costs.limit == 1  # not worth the wait for strangers
    sizes = [costs.together(16) for _ in range(2 * TRY_EVERY)]
    assert sizes.count(4) == 2 * TRY_EVERY - 2
    assert (sizes[TRY_EVERY - 1], sizes[-1]) == (2, 8)


@pytest.mark.parametrize(
    ("items", "best", "run"), [(10, 8, 10), (12, 8, 6), (20, 8, 10), (10, 4, 5), (10, 1, 1), (3, 8, 3), (1, 8, 1)]
)
def test_siblings_are_run_in_even_parts_of_about_what_costs_least(items: int, best: int, run: int) -> None:
    costs = BatchCosts(16)
    for size in (1, 2, 4, 8):
        costs.observe(size, size * (1.0 if size == best else 2.0))
    assert costs.together(items) == run
