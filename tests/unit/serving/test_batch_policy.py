"""What a free slot does, for lanes of all kinds: tables of values in, a decision out."""

from __future__ import annotations

import pytest

from core.serving.batch_policy import AGEING_S, BatchPolicy, Lane, Take, Wait, decide, part_of_siblings

NOW = 100.0
EAGER = BatchPolicy(max_batch=8)
PATIENT = BatchPolicy(max_batch=8, max_delay_s=0.02)


def lane(items: int = 1, *, waited_s: float = 0.0, priority: int = 5, shape: str = "a") -> Lane:
    return Lane(shape, priority, NOW - waited_s, items)


@pytest.mark.parametrize("policy", [EAGER, PATIENT])
def test_nothing_waits(policy: BatchPolicy) -> None:
    assert decide([], NOW, policy) is None


@pytest.mark.parametrize("items", [1, 7, 8, 9, 1000])
def test_without_a_delay_a_free_slot_takes_what_waits(items: int) -> None:
    assert decide([lane(items)], NOW, EAGER) == Take((0,))


@pytest.mark.parametrize(
    ("items", "waited_s", "limit", "decision"),
    [
        (1, 0.0, None, Wait(NOW + 0.02)),
        (1, 0.015, None, Wait(NOW + 0.005)),
        (1, 0.02, None, Take((0,))),
        (1, 5.0, None, Take((0,))),
        (7, 0.0, None, Wait(NOW + 0.02)),
        (8, 0.0, None, Take((0,))),
        (9, 0.0, None, Take((0,))),
        (3, 0.0, 4, Wait(NOW + 0.02)),
        (4, 0.0, 4, Take((0,))),
        (1, 0.0, 1, Take((0,))),
    ],
)
def test_a_delay_is_waited_for_more_until_the_batch_is_full_or_the_oldest_has_waited_it(
    items: int, waited_s: float, limit: int | None, decision: Take | Wait
) -> None:
    answer = decide([lane(items, waited_s=waited_s)], NOW, PATIENT, limit)
    if isinstance(decision, Wait):
        assert isinstance(answer, Wait)
        assert answer.until == pytest.approx(decision.until)
    else:
        assert answer == decision


def test_the_oldest_of_all_that_share_the_batch_ends_the_wait() -> None:
    lanes = [lane(1, waited_s=0.001, priority=1), lane(1, waited_s=0.015, priority=5)]
    answer = decide(lanes, NOW, PATIENT)
    assert isinstance(answer, Wait)
    assert answer.until == pytest.approx(NOW + 0.005)


def test_all_lanes_of_one_shape_fill_one_batch() -> None:
    lanes = [lane(4, priority=5), lane(4, priority=1)]
    assert decide(lanes, NOW, PATIENT) == Take((1, 0))
    assert isinstance(decide([lane(4), lane(4, shape="b")], NOW, PATIENT), Wait), "other shapes do not count"


@pytest.mark.parametrize(
    ("lanes", "order"),
    [
        ([lane(priority=5), lane(priority=0)], (1, 0)),
        ([lane(priority=0), lane(priority=9)], (0, 1)),
        ([lane(priority=5), lane(priority=5, waited_s=0.1)], (1, 0)),
        ([lane(shape="a"), lane(shape="b", waited_s=0.1)], (1,)),
        ([lane(shape="a", priority=3), lane(shape="b", priority=2), lane(shape="a", priority=1)], (2, 0)),
        ([lane(shape="b", waited_s=0.1), lane(shape="a", priority=0), lane(shape="a", priority=7)], (1, 2)),
    ],
)
def test_the_most_urgent_lane_chooses_the_shape_and_those_of_its_shape_come_along(
    lanes: list[Lane], order: tuple[int, ...]
) -> None:
    assert decide(lanes, NOW, EAGER) == Take(order)


@pytest.mark.parametrize(("levels", "first"), [(1, 0), (4, 0), (8, 0), (10, 1), (30, 1)])
def test_waiting_makes_urgent_by_a_level_for_every_ageing_time(levels: int, first: int) -> None:
    """Priority 9, against requests of priority 0 that never cease to come."""
    lanes = [lane(priority=0, shape="urgent"), lane(priority=9, shape="patient", waited_s=levels * AGEING_S)]
    assert decide(lanes, NOW, EAGER) == Take((first,))


def test_none_starves() -> None:
    """A slot that is always busy with urgent requests still takes a patient one after the nine levels between."""
    arrived, now, step_s = 0.0, 0.0, 0.05
    while True:
        urgent = Lane("urgent", 0, now, 1)
        answer = decide([urgent, Lane("patient", 9, arrived, 1)], now, EAGER)
        assert isinstance(answer, Take)
        if answer.lanes == (1,):
            break
        now += step_s
        assert now < 60
    assert now == pytest.approx(9 * AGEING_S, abs=2 * step_s)


def test_the_ageing_time_is_the_policy_s() -> None:
    quick = BatchPolicy(ageing_s=0.01)
    lanes = [lane(priority=0, shape="urgent"), lane(priority=9, shape="patient", waited_s=0.1)]
    assert decide(lanes, NOW, quick) == Take((1,))
    assert decide(lanes, NOW, EAGER) == Take((0,))


@pytest.mark.parametrize(
    ("siblings", "slots", "parts"),
    [
        (10, 1, [10]),
        (10, 2, [5, 3, 1, 1]),
        (10, 4, [3, 2, 2, 1, 1, 1]),
        (70, 1, [32, 32, 6]),
        (3, 8, [1, 1, 1]),
    ],
)
def test_siblings_are_dealt_out_so_that_all_slots_end_together(
    siblings: int, slots: int, parts: list[int]
) -> None:
    taken, left = [], siblings
    while left:
        taken.append(part_of_siblings(left, left, slots, 32) or 1)
        left -= taken[-1]
    assert taken == parts


def test_siblings_are_no_more_than_others_where_others_wait() -> None:
    assert part_of_siblings(10, 11, 2, 32) == 0
    assert part_of_siblings(1, 1, 2, 32) == 0
