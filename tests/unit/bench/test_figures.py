from __future__ import annotations

import json
from collections import Counter

import pytest

from app.bench.figures import Samples, costs, percentile, summarise
from tests.unit.bench.points import full_report, point


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([4.0], 99, 4.0),
        ([3.0, 1.0, 2.0, 4.0], 50, 2.0),
        ([3.0, 1.0, 2.0, 4.0], 75, 3.0),
        ([*map(float, range(1, 101))], 99, 99.0),
        ([*map(float, range(1, 101))], 99.5, 100.0),
    ],
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    values: list[float], percent: float, expected: float | None
) -> None:
    assert percentile(values, percent) == expected


def test_only_answers_count_as_calls_a_second() -> None:
    samples = Samples([2.0, 4.0], [], errors=Counter({"no": 5}), elapsed_s=0.5)
    found = summarise("core", "closed", 4, samples)
    assert (found.calls, found.failed, found.calls_per_s, found.mean_ms, found.max_ms) == (2, 5, 4.0, 3.0, 4.0)


def test_what_was_never_sent_is_late_all_the_same() -> None:
    found = summarise("core", "open", 4, Samples([1.0], [500.0, 600.0, 700.0], elapsed_s=1))
    assert (found.p50_ms, found.max_ms, found.unsent, found.calls) == (500.0, 700.0, 3, 1)


def test_nothing_measured_has_no_figures() -> None:
    found = summarise("core", "closed", 1, Samples())
    assert (found.p50_ms, found.mean_ms, found.max_ms, found.calls_per_s) == (None, None, None, 0.0)


def test_a_cost_is_the_difference_to_the_layer_below_at_the_same_load() -> None:
    points = [
        point("engine", "closed", 1, 2.0),
        point("http", "closed", 1, 5.0),
        point("engine", "closed", 4, 8.0, 8.0),
        point("http", "closed", 4, 6.0),
    ]
    found = [(c.load, c.layer, c.below, c.added_p50_ms, c.throughput_share) for c in costs(points)]
    assert found == [(1, "http", "engine", 3.0, 1.0), (4, "http", "engine", -2.0, 0.5)]


def test_an_overloaded_layer_has_no_cost() -> None:
    assert costs([point("core", "open", 9, 1.0), point("http", "open", 9, 5.0, unsent_ms=[9.0])]) == []


def test_a_report_is_json() -> None:
    told = json.loads(json.dumps(full_report().to_json()))
    assert told["complete"]
    assert told["points"][2]["errors"] == {"The server answered 503: <full> & busy.": 2}
    assert [cost["added_p50_ms"] for cost in told["costs"]] == [2.0, 4.0]
