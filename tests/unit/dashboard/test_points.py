"""What the live figures tell the charts."""

from __future__ import annotations

from app.dashboard.figures import point_of
from app.readings import Step, Tally
from core.metrics import STAGE_BOUNDS_MS


def test_a_point_has_what_was_asked_of_each_model_and_how_long_all_took() -> None:
    buckets = [0] * (len(STAGE_BOUNDS_MS) + 1)
    buckets[0] = 30
    models = {"cats": Tally(20, 1, buckets), "dogs": Tally(10, 0, [0] * len(buckets))}
    point = point_of(Step(1000.4, 5.0, models, 0, 0.0, 0))
    assert (point.at, point.requests) == (1000, {"cats": 4.0, "dogs": 2.0})
    assert list(point.latency) == ["p50", "p95", "p99"]
    assert all(ms is not None and 0 < ms <= STAGE_BOUNDS_MS[0] for ms in point.latency.values())


def test_a_point_of_a_step_in_which_nothing_was_asked_has_no_times() -> None:
    point = point_of(Step(1000.0, 5.0, {}, 0, 0.0, 0))
    assert point.requests == {}
    assert set(point.latency.values()) == {None}
