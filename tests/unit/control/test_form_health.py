"""When a recommended form is held to be at fault."""

from __future__ import annotations

import pytest

from core.control.form_health import Runs, runs_of, why_broken, why_crashed

NEVER = Runs()


@pytest.mark.parametrize(
    ("seen", "uploaded", "says"),
    [
        (Runs(19, 19), NEVER, None),
        (Runs(20, 1), NEVER, None),
        (Runs(20, 2), NEVER, "2 of 20 requests failed in service"),
        (Runs(20, 2), Runs(100, 10), None),
        (Runs(20, 10), Runs(100, 10), "10 of 20 requests failed in service, against 10 % as uploaded"),
        (Runs(20, 2), Runs(5, 5), "2 of 20 requests failed in service"),
    ],
)
def test_failures(seen: Runs, uploaded: Runs, says: str | None) -> None:
    assert why_broken(seen, uploaded) == says


@pytest.mark.parametrize(
    ("crashes", "failed_starts", "before", "says"),
    [
        ([1.0, 2.0], 0, False, None),
        ([1.0, 2.0, 3.0], 0, False, "its process ended 3 times in 10 minutes of service"),
        ([1.0, 2.0, 3.0], 0, True, None),
        ([-900.0, -800.0, 3.0], 0, False, None),
        ([1.0], 1, False, None),
        ([1.0], 2, True, "its process does not start again"),
    ],
)
def test_crashes(crashes: list[float], failed_starts: int, before: bool, says: str | None) -> None:
    assert why_crashed(crashes, 10.0, failed_starts=failed_starts, before=before) == says


def test_counters_that_began_anew_are_all_new() -> None:
    assert Runs(10, 1).since(Runs(4, 1)) == Runs(6, 0)
    assert Runs(3, 0).since(Runs(10, 1)) == Runs(3, 0)
    assert runs_of({"1": {"requests": 3, "errors": 2, "broken": 1}}, 1) == Runs(3, 1)
    assert runs_of({}, 1) == NEVER
