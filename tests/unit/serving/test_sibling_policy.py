from __future__ import annotations

import pytest

from core.serving.batch_size_policy import TRY_EVERY
from core.serving.sibling_policy import Family, SiblingSlots
from core.serving.slot_policy import SlotBounds

FOUR = SlotBounds(1, 4, 4)


def learned(together_s: float, apart_s: float, items: int = 10) -> SiblingSlots:
    slots = SiblingSlots(FOUR)
    slots.observe(items, 1, together_s)
    slots.observe(items, 4, apart_s)
    return slots


def test_each_way_is_tried_once_before_they_are_compared() -> None:
    slots = SiblingSlots(FOUR)
    assert slots.choose(10) == 1
    assert slots.choose(10) == 1  # until it is known
    slots.observe(10, 1, 1.0)
    assert slots.choose(10) == 4
    slots.observe(10, 4, 2.0)
    assert slots.choose(10) == 1


@pytest.mark.parametrize(("apart_s", "usual", "other"), [(0.8, 4, 1), (0.97, 1, 4), (1.5, 1, 4)])
def test_side_by_side_where_that_is_clearly_faster_and_now_and_then_the_other_way(
    apart_s: float, usual: int, other: int
) -> None:
    slots = learned(1.0, apart_s)
    chosen = [slots.choose(10) for _ in range(2 * TRY_EVERY)]
    assert chosen == ([usual] * (TRY_EVERY - 1) + [other]) * 2


def test_what_was_measured_once_is_not_believed_for_ever() -> None:
    slots = learned(1.0, 0.5)
    assert slots.choose(10) == 4
    for _ in range(50):
        slots.observe(10, 4, 2.0)
    assert slots.choose(10) == 1


def test_families_of_another_size_are_another_matter() -> None:
    slots = learned(1.0, 0.5)
    assert slots.choose(15) == 4  # 8 to 15 are one class
    assert slots.choose(3) == 1


def test_no_more_slots_than_siblings_or_than_there_are() -> None:
    slots = learned(1.0, 0.5, items=3)
    assert slots.choose(3) == 3
    assert SiblingSlots(SlotBounds(2, 2, 4)).choose(10) == 2
    assert SiblingSlots(SlotBounds(2, 4, 4)).choose(10) == 2
    assert SiblingSlots(FOUR).choose(1) == 1


def test_a_family_has_ended_with_its_last() -> None:
    family = Family(10, 2, 0.0)
    assert [family.ended(items) for items in (5, 3, 1, 1)] == [False, False, False, True]
    mixed = Family(10, 2, 0.0)
    assert [mixed.ended(items) for items in (5, 6, 1)] == [False, False, False]
