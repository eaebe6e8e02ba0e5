"""Sums of what several workers tell."""

from __future__ import annotations

from typing import Any

import pytest

from core.control.totals import WINDOW_S, Totals, add_up


@pytest.mark.parametrize(
    ("one", "other", "sum_"),
    [
        (1, 2.5, 3.5),
        ([1, [2]], [3, [4]], [4, [6]]),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 3, "b": 3}),
        ({"max_x": 3, "n": 1}, {"max_x": 2, "n": 1}, {"max_x": 3, "n": 2}),
        ({"m": {"200 ok": 1}}, {"m": {"503 queue_full": 2}}, {"m": {"200 ok": 1, "503 queue_full": 2}}),
    ],
)
def test_add_up(one: Any, other: Any, sum_: Any) -> None:
    assert add_up(one, other) == sum_


def test_reports_of_several_workers_are_one_sum() -> None:
    totals = Totals()
    for count in (1, 2, 3):
        totals.add({"m": {"versions": {"1": {"requests": {"200 ok": count}}}}}, {}, 0)
    totals.add({"n": {"versions": {}}}, {}, 0)
    assert totals.of("m") == {"m": {"versions": {"1": {"requests": {"200 ok": 6}}}}}
    assert totals.of(None).keys() == {"m", "n"}
    assert totals.of("unknown") == {}


def test_seconds_are_kept_for_as_long_as_they_are_asked_for() -> None:
    totals = Totals()
    for now in range(1000, 1200):
        totals.add({"m": {"traffic": {"requests": 1, "seconds": {str(now): 1}}}}, {}, now)
    traffic = totals.of("m")["m"]["traffic"]
    assert traffic["requests"] == 200
    assert sorted(map(int, traffic["seconds"])) == list(range(1200 - WINDOW_S, 1200))


def test_what_belongs_to_a_load_goes_with_it_and_does_not_come_back() -> None:
    totals = Totals()
    report = {"m": {"loaded": {"old": {"n": 1}, "new": {"n": 1}}}}
    totals.add(report, {"m": {"old", "new"}}, 0)
    totals.keep("m", {"new"})
    assert totals.of("m")["m"]["loaded"] == {"new": {"n": 1}}
    totals.add(report, {"m": {"new"}}, 0)  # told by a worker that still drains the old one
    assert totals.of("m")["m"]["loaded"] == {"new": {"n": 2}}
    totals.keep("unknown", set())
