"""The time of day jumps, forwards and backwards: nobody is locked out, or gets more than one window more."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from core.access.counters import Counters, Table
from core.access.jwt import Claims, read, sign
from core.access.rates import parse_rates
from core.access.windows import subject_of
from core.errors import Unauthenticated

NOW_S = 1_800_000_030.0
DAY_S = 86_400
JUMPS_S = [-400 * DAY_S, -DAY_S, -3600, -61, -59, -1, 1, 59, 61, 3600, DAY_S, 400 * DAY_S]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day, to be set by the test."""
    now = [NOW_S]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


@pytest.mark.parametrize("burst", [None, 10], ids=["window", "bucket"])
@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_limit_that_is_used_up(clock: list[float], jump_s: float, burst: int | None, table: Table) -> None:
    subject = subject_of("x", parse_rates(["10/minute"]), burst)
    counters = Counters(table)

    def let_in() -> int:
        return sum(counters.hit(subject)[0] == 0 for _ in range(30))

    assert let_in() == 10
    clock[0] += jump_s
    assert let_in() <= 10, "one window more, at most"
    # By the steady clock from here on, with callers that do not wait as they are told.
    again = 0
    for _ in range(20):
        clock[0] += 10
        again += let_in()
    assert 10 <= again <= 44, "as much as the rate allows in 200 s, and no lock-out until the clock is back"


def test_a_sign_in_token_ends_by_the_time_of_day() -> None:
    key = b"k" * 32
    soon = datetime.now(UTC) + timedelta(minutes=30)
    assert read(sign(Claims(1, "s"), key, soon), key).user_id == 1
    with pytest.raises(Unauthenticated):  # the clock has jumped an hour ahead since it was made
        read(sign(Claims(1, "s"), key, soon - timedelta(hours=1)), key)
