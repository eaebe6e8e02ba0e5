from __future__ import annotations

import pytest

from core.serving.batch_size_policy import EXPLORE_EVERY, BatchCosts
from core.serving.slot_policy import (
    SHORT_RUN_S,
    SURELY_LONG_S,
    Demand,
    SlotBounds,
    share,
    slots_for,
    threads_for,
    widths,
)

FOUR = SlotBounds(1, 4, 4)


@pytest.mark.parametrize(
    ("demand", "bounds", "slots"),
    [
        pytest.param(Demand(1, 1), FOUR, 1, id="one alone gets the machine"),
        pytest.param(Demand(0, 0), FOUR, 1, id="nothing to do"),
        pytest.param(Demand(2, 2), FOUR, 2, id="two"),
        pytest.param(Demand(3, 3), FOUR, 3, id="three"),
        pytest.param(Demand(100, 100), FOUR, 4, id="no more than the most"),
        pytest.param(Demand(8, 1), FOUR, 1, id="one request of eight runs in one slot"),
        pytest.param(Demand(9, 2), FOUR, 2, id="and one more beside it"),
        pytest.param(Demand(33, 33, limit=32), FOUR, 1, id="what fits the next batch waits for it"),
        pytest.param(Demand(64, 64, limit=32), FOUR, 2, id="two full batches"),
        pytest.param(Demand(1, 1), SlotBounds(2, 4, 4), 2, id="no less than the least"),
        pytest.param(Demand(1, 1), SlotBounds(4, 4, 4), 4, id="fixed, idle"),
        pytest.param(Demand(99, 99), SlotBounds(1, 1, 4), 1, id="fixed, full"),
        pytest.param(Demand(99, 99), SlotBounds(1, 1, 1), 1, id="one core"),
        pytest.param(Demand(99, 99, item_s=SHORT_RUN_S / 2), FOUR, 1, id="runs too short to share"),
        pytest.param(Demand(99, 99, limit=8, item_s=SHORT_RUN_S / 2), FOUR, 4, id="a batch of them is not"),
        pytest.param(
            Demand(99, 99, item_s=SHORT_RUN_S / 2, last_s=SURELY_LONG_S), FOUR, 4, id="measured too short"
        ),
        pytest.param(Demand(99, 99, item_s=0.01), FOUR, 4, id="long runs"),
    ],
)
def test_slots_follow_the_demand(demand: Demand, bounds: SlotBounds, slots: int) -> None:
    assert slots_for(demand, bounds) == slots


@pytest.mark.parametrize(
    ("cores", "slots", "threads"), [(1, 1, 1), (2, 1, 2), (2, 2, 1), (8, 1, 8), (8, 3, 6), (8, 8, 1), (2, 64, 1)]
)
def test_callers_and_helpers_are_as_many_as_cores(cores: int, slots: int, threads: int) -> None:
    assert threads_for(slots, SlotBounds(1, slots, cores)) == threads
    assert threads - 1 + slots == max(cores, slots)


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        (SlotBounds(1, 1, 1), (1,)),
        (SlotBounds(1, 1, 8), (8,)),
        (SlotBounds(8, 8, 8), (1,)),
        (SlotBounds(1, 2, 2), (2, 1)),
        (SlotBounds(1, 8, 8), (8, 5, 1)),
        (SlotBounds(1, 6, 6), (6, 3, 1)),
        (SlotBounds(1, 64, 64), (64, 33, 1)),
        (SlotBounds(2, 4, 4), (3, 1)),
        (SlotBounds(1, 64, 2), (2, 1)),
    ],
)
def test_widths_are_few_and_reach_from_the_least_slots_to_the_most(
    bounds: SlotBounds, found: tuple[int, ...]
) -> None:
    assert widths(bounds) == found


@pytest.mark.parametrize(
    ("threads", "busy", "cores", "part"),
    [
        pytest.param(4, 1, 4, 1.0, id="alone and wide: all"),
        pytest.param(1, 1, 4, 0.25, id="alone and narrow: one core"),
        pytest.param(1, 4, 4, 0.25, id="one core each"),
        pytest.param(3, 2, 4, 0.5, id="a caller and a helper each"),
        pytest.param(2, 2, 2, 0.5, id="never more than there is"),
        pytest.param(1, 8, 4, 0.25, id="more slots than cores"),
    ],
)
def test_the_part_of_the_machine_that_a_run_has(threads: int, busy: int, cores: int, part: float) -> None:
    assert share(threads, busy, SlotBounds(1, 8, cores)) == pytest.approx(part)


def test_the_batch_that_explores_changes_no_slots() -> None:
    costs = BatchCosts(8)
    costs.observe(8, 0.08)
    for _ in range(EXPLORE_EVERY - 1):
        costs.observe(1, 0.005)
    assert (costs.limit, costs.usual, costs.item_s) == (2, 1, 0.005)
