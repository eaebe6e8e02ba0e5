from __future__ import annotations

import pytest

from core.control.desired import DesiredDeployment, TrafficShare, WatchLimits
from core.control.watch import Counts, Watch, begin, judge, reason_to_roll_back

LIMITS = WatchLimits(60, 0.05, 2.0, 20)
FINE = Counts(100, 0, 1000.0)  # 10 ms each

JUDGED: dict[str, tuple[Counts, Counts, str | None]] = {
    "nothing yet": (Counts(), FINE, None),
    "too few to judge": (Counts(19, 19, 0), FINE, None),
    "all failed": (Counts(20, 20, 0), FINE, "100 % of 20 requests failed (limit 5 %)"),
    "a few failed": (Counts(50, 6, 440), FINE, "12 % of 50 requests failed (limit 5 %)"),
    "at the limit": (Counts(100, 5, 950), FINE, None),
    "over the limit": (Counts(200, 11, 1890), FINE, "5.5 % of 200 requests failed (limit 5 %)"),
    "as fast": (Counts(20, 0, 200), FINE, None),
    "twice as slow, which is allowed": (Counts(20, 0, 400), FINE, None),
    "slower": (
        Counts(20, 0, 900),
        FINE,
        "20 requests took 45.0 ms on average, against 10.0 ms before (limit 2 times as long)",
    ),
    "slower, but who was before is not known": (Counts(20, 0, 900), Counts(19, 0, 190), None),
    "slower, but mostly failed before": (Counts(20, 0, 900), Counts(100, 95, 50), None),
    "three times as slow, but within the noise": (Counts(20, 0, 30), Counts(100, 0, 50), None),
    "faster": (Counts(20, 0, 20), FINE, None),
}


@pytest.mark.parametrize("case", JUDGED)
def test_judge(case: str) -> None:
    seen, reference, fault = JUDGED[case]
    assert judge(seen, reference, LIMITS) == fault


def test_no_error_is_allowed_where_the_limit_is_zero() -> None:
    strict = WatchLimits(60, 0.0, 2.0, 1)
    assert judge(Counts(1, 0, 1), FINE, strict) is None
    assert judge(Counts(1, 1, 0), FINE, strict) == "100 % of 1 requests failed (limit 0 %)"


def test_counts_since_an_earlier_look() -> None:
    assert Counts(30, 3, 50).since(Counts(10, 1, 20)) == Counts(20, 2, 30)
    assert Counts(5, 0, 5).since(Counts(10, 1, 20)) == Counts(5, 0, 5), "counting began anew"


def desired(
    *live: int, shadow: int | None = None, watch: WatchLimits | None = LIMITS, **fields: object
) -> DesiredDeployment:
    traffic = [TrafficShare(version) for version in live]
    if shadow is not None:
        traffic.append(TrafficShare(shadow, mode="shadow"))
    return DesiredDeployment(1, "m", 1, True, tuple(traffic), watch=watch, **fields)  # type: ignore[arg-type]


def counters(
    requests: int = 0, errors: int = 0, total_ms: float = 0.0, recent_ms: float = 0.0
) -> dict[str, float]:
    return {"requests": requests, "errors": errors, "total_ms": total_ms, "recent_ms": recent_ms}


def test_a_full_swap_is_compared_with_just_before() -> None:
    was = {"1": counters(1000, 0, 50_000.0, recent_ms=10.0)}  # slow once, but not lately
    watch = begin(desired(2), desired(1), None, was, {"2": counters()}, now=5.0)
    assert watch is not None
    assert (watch.until, watch.fresh, watch.staying) == (65.0, {2: Counts()}, {})
    assert watch.reference.mean_ms == pytest.approx(10.0)
    assert reason_to_roll_back(watch, {"2": counters(20, 0, 390.0)}) is None
    assert reason_to_roll_back(watch, {"2": counters(20, 0, 500.0)}) == (
        "Version 2 was rolled back: 20 requests took 25.0 ms on average, against 10.0 ms before "
        "(limit 2 times as long)."
    )


def test_a_canary_is_compared_with_the_same_window() -> None:
    was = {"1": counters(1000, 0, 10_000.0, 10.0)}
    watch = begin(desired(1, 2), desired(1), None, was, was, now=0.0)
    assert watch is not None
    assert (set(watch.fresh), watch.staying) == ({2}, {1: Counts(1000, 0, 10_000.0)})
    both_slow = {"1": counters(1100, 0, 15_000.0), "2": counters(20, 0, 1000.0)}  # 50 ms both
    assert reason_to_roll_back(watch, both_slow) is None
    one_slow = {"1": counters(1100, 0, 11_000.0), "2": counters(20, 0, 1000.0)}
    assert "against 10.0 ms before" in str(reason_to_roll_back(watch, one_slow))


def test_what_a_shadow_did_is_not_held_against_it_once_it_is_live() -> None:
    shadowed = {"1": counters(100, 0, 100.0), "2": counters(100, 50, 100.0)}
    watch = begin(desired(2), desired(1, shadow=2), None, shadowed, shadowed, now=0.0)
    assert watch is not None
    assert reason_to_roll_back(watch, {"2": counters(150, 50, 150.0)}) is None
    assert "40 % of 50 requests" in str(reason_to_roll_back(watch, {"2": counters(150, 70, 130.0)}))


NOT_WATCHED: dict[str, tuple[DesiredDeployment, DesiredDeployment | None]] = {
    "nothing served before": (desired(1), None),
    "not asked for": (desired(2, watch=None), desired(1)),
    "the same version": (desired(1), desired(1)),
    "other weights": (desired(1, 2), desired(1, 2)),
    "a canary withdrawn": (desired(1), desired(1, 2)),
    "a new shadow": (desired(1, shadow=2), desired(1)),
    "rolled back by the platform": (desired(1, rolled_back="Version 2 was …"), desired(2)),
    "another model of that name": (desired(2), desired(1, origin="another")),
}


@pytest.mark.parametrize("case", NOT_WATCHED)
def test_what_is_not_watched(case: str) -> None:
    after, before = NOT_WATCHED[case]
    assert begin(after, before, None, {}, {}, now=0.0) is None


def canary() -> Watch:
    watch = begin(desired(1, 2), desired(1), None, {}, {"1": counters(7), "2": counters()}, now=0.0)
    assert watch is not None
    return watch


def test_more_traffic_for_a_canary_does_not_end_its_watch() -> None:
    grown = {"1": counters(50), "2": counters(10, 1)}
    watch = begin(desired(1, 2), desired(1, 2), canary(), grown, grown, now=30.0)
    assert watch is not None
    assert (watch.until, watch.fresh, watch.staying) == (60.0, {2: Counts()}, {1: Counts(7)})
    assert watch.before == desired(1)
    alone = begin(desired(2), desired(1, 2), canary(), grown, grown, now=30.0)
    assert alone is not None
    assert (alone.until, alone.before, alone.staying) == (60.0, desired(1), {})


def test_another_new_version_renews_the_window_and_the_way_back_stays() -> None:
    watch = begin(desired(1, 2, 3), desired(1, 2), canary(), {}, {}, now=30.0)
    assert watch is not None
    assert (watch.until, set(watch.fresh), watch.before) == (90.0, {2, 3}, desired(1))


def test_going_back_by_hand_within_the_window_is_not_watched() -> None:
    watch = begin(desired(2), desired(1), None, {}, {}, now=0.0)
    assert watch is not None
    assert begin(desired(1), desired(2), watch, {}, {}, now=10.0) is None


def test_a_replaced_canary_is_watched_against_what_is_there() -> None:
    watch = begin(desired(1, 3), desired(1, 2), canary(), {}, {}, now=30.0)
    assert watch is not None
    assert (watch.until, set(watch.fresh), watch.before) == (90.0, {3}, desired(1, 2))
