from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse

from core.access import own_windows
from core.access.counters import Counters, Table
from core.access.limits import RateLimiter, RateUsedUp
from core.access.own_windows import LOOKS, MOST_LOOKS, OwnWindows, Row
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.access.windows import LimitState, Window, one_more, subject_of
from core.errors import LimitExceeded, LimitsUnavailable, Unprocessable
from core.metrics import Counts


def record(*rates: str, token_id: int = 1) -> TokenRecord:
    return TokenRecord(token_id, "robot", rates=parse_rates(rates))


def refused_for(limiter: RateLimiter, rate: str) -> float | None:
    """Seconds that a request is told to wait; None where it is let in."""
    try:
        limiter.hit(record(rate))
    except LimitExceeded as error:
        return error.retry_after_s
    return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the limiter reads, to be set by the test."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter()
    assert {limiter.hit(record()) for _ in range(1000)} == {None}


def test_a_rate_holds_exactly_and_says_where_it_stands(clock: list[float]) -> None:
    limiter = RateLimiter()
    states = [limiter.hit(record("3/minute")) for _ in range(3)]
    assert [(state.limit, state.remaining) for state in states if state] == [(3, 2), (3, 1), (3, 0)]
    with pytest.raises(LimitExceeded, match="3 per minute") as caught:
        limiter.hit(record("3/minute"))
    assert caught.value.retry_after_s is not None
    assert 1 <= caught.value.retry_after_s <= 61
    assert isinstance(caught.value, RateUsedUp)
    state = caught.value.state
    assert caught.value.headers()["x-ratelimit-remaining"] == "0"
    assert (state.limit, state.remaining) == (3, 0)
    assert clock[0] < state.reset_epoch_s <= clock[0] + 61


def test_whoever_waits_as_told_is_let_in(clock: list[float]) -> None:
    limiter = RateLimiter()
    for start in (0, 20.3, 59.9, 130.7):
        clock[0] += start
        while (wait_s := refused_for(limiter, "5/minute")) is None:
            pass
        clock[0] += wait_s - 1.5
        assert refused_for(limiter, "5/minute") is not None
        clock[0] += 1.5
        assert refused_for(limiter, "5/minute") is None


def test_no_burst_at_the_edge_of_a_window(clock: list[float]) -> None:
    limiter = RateLimiter()
    clock[0] = 1_800_000_000.0 - 1_800_000_000.0 % 60 + 59
    assert [limiter.hit(record("10/minute")) is not None for _ in range(10)] == [True] * 10
    clock[0] += 2  # in the next window
    assert [refused_for(limiter, "10/minute") for _ in range(2)] != [None, None]


def test_tokens_are_counted_apart() -> None:
    limiter = RateLimiter()
    assert limiter.hit(record("1/day", token_id=1)) is not None
    assert limiter.hit(record("1/day", token_id=2)) is not None
    with pytest.raises(LimitExceeded):
        limiter.hit(record("1/day", token_id=1))


def test_a_refused_request_uses_up_nothing_of_the_other_window(clock: list[float]) -> None:
    limiter = RateLimiter()
    both = record("4/day", "2/second")
    for _ in range(2):
        limiter.hit(both)
    for _ in range(5):
        with pytest.raises(LimitExceeded, match="2 per second"):
            limiter.hit(both)
    clock[0] += 3
    states = [limiter.hit(both) for _ in range(2)]
    assert [state.remaining for state in states if state] == [1, 0]
    clock[0] += 3
    with pytest.raises(LimitExceeded, match="4 per day"):
        limiter.hit(both)


def test_no_thread_is_started_and_old_counters_go(clock: list[float]) -> None:
    threads = threading.active_count()
    counts = Counts()
    limiter = RateLimiter(4096, counts=counts)
    for token_id in range(20_000):
        limiter.hit(record("1/second", token_id=token_id))
        clock[0] += 0.01
    assert threading.active_count() <= threads  # one of another test may have ended meanwhile
    assert limiter.counted() <= 201
    assert counts.limit_failures == 0


@pytest.mark.parametrize("fail_open", [True, False])
def test_more_limits_than_can_be_counted_are_let_in_or_refused_as_said(fail_open: bool) -> None:
    counts = Counts()
    limiter = RateLimiter(64, counts=counts, fail_open=fail_open)
    refusals = 0
    for token_id in range(300):
        try:
            limiter.hit(record("5/day", token_id=token_id))
        except LimitsUnavailable:
            refusals += 1
    assert counts.limit_failures >= 300 - 64
    assert refusals == (0 if fail_open else counts.limit_failures)
    counted = [token_id for token_id in range(300) if _remaining(limiter, token_id) == 3]
    assert 0 < len(counted) <= 64  # those that have a slot keep it


def _remaining(limiter: RateLimiter, token_id: int) -> int | None:
    try:
        state = limiter.hit(record("5/day", token_id=token_id))
    except LimitsUnavailable:
        return None
    return state.remaining if state else None


def test_changing_the_amount_forgets_nothing(clock: list[float]) -> None:
    limiter = RateLimiter()
    for _ in range(3):
        limiter.hit(record("3/hour"))
    assert [refused_for(limiter, "5/hour") is None for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_a_little_forgives_nothing_and_one_far_off_blocks_nobody(
    clock: list[float],
) -> None:
    limiter = RateLimiter()
    clock[0] = 1_800_000_000.0 - 1_800_000_000.0 % 60
    for _ in range(5):
        assert refused_for(limiter, "5/minute") is None
    clock[0] -= 2
    assert refused_for(limiter, "5/minute") is not None
    clock[0] -= 1000
    assert refused_for(limiter, "5/minute") is None


def test_of_two_rates_over_the_same_time_the_lower_holds() -> None:
    limiter = RateLimiter()
    for token_id, rates in enumerate((("3/hour", "5/hour"), ("9/60 minute", "3/hour"))):
        one = record(*rates, token_id=token_id)
        for _ in range(3):
            limiter.hit(one)
        with pytest.raises(LimitExceeded):
            limiter.hit(one)


@given(
    amount=st.integers(1, 50),
    length_s=st.sampled_from([1, 60, 86_400]),
    window=st.integers(-2, 2),
    before=st.integers(0, 60),
    hits=st.integers(0, 60),
    into=st.floats(0, 1, exclude_max=True),
)
def test_the_short_arithmetic_of_a_window_is_the_long_one(
    amount: int, length_s: int, window: int, before: int, hits: int, into: float
) -> None:
    limit = Window(b"k" * 16, amount, length_s, "")
    now_s = 1_800_000_000 // length_s * length_s + into * length_s
    number = int(now_s // length_s) + window
    was = ((number + 2.0) * length_s, number, before, hits)
    assert limit.one_more(was, now_s) == one_more(limit, was, now_s)


@given(
    rates=st.lists(st.sampled_from(["3/second", "5/10 second", "8/minute", "20/hour"]), min_size=1, unique=True),
    waits_s=st.lists(
        st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 7.5, 31.0, 59.0, 3600.0, -1.0, -61.0]), max_size=60
    ),
)
def test_the_short_way_to_begun_windows_counts_as_the_long_one(rates: list[str], waits_s: list[float]) -> None:
    subject, short, long = subject_of("robot", parse_rates(rates)), OwnWindows(1024), Counters(OwnWindows(1024))
    usual = Counters(short)
    now_s, begun = 1_800_000_000.0, None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now_s)
        for wait_s in waits_s:
            now_s += wait_s
            told = long.hit(subject)
            state = None if begun is None else begun.one_more()
            assert (usual.hit(subject) if state is None else (0.0, "", state)) == told
            begun = short.begun([subject])
            assert (usual.left(subject), usual.in_use()) == (long.left(subject), long.in_use())
    assert begun is not None or not waits_s


def test_a_window_whose_place_was_given_to_another_begins_anew(clock: list[float]) -> None:
    table = OwnWindows(64)  # one in each stripe
    counters = Counters(table)
    first, second = (subject_of("robot", parse_rates([rate])) for rate in ("2/second", "2/minute"))
    counters.hit(first)
    begun = table.begun([first])
    assert begun is not None
    at = clock[0]
    clock[0] += 5
    counters.hit(second)
    clock[0] = at  # set back: what was forgotten is not counted in
    assert begun.one_more() is None
    assert counters.hit(second)[2].remaining == 0


def test_a_new_window_looks_at_few_of_those_there_are() -> None:
    """However many there are: what is over makes room a few at a time, and none is kept for ever."""
    table = OwnWindows(64 * 1000)
    looked: list[bytes] = []

    class Watched(Row):
        def __getattribute__(self, name: str) -> Any:
            if name == "ends_s":
                looked.append(b"")
            return super().__getattribute__(name)

    def add(number: int, ends_s: float, now_s: float) -> None:
        looked.clear()
        table.write(0, number.to_bytes(16, "big"), None, (ends_s, 0, 0, 1), now_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_windows, "Row", Watched)
        for number in range(1000):
            add(number, 500.0 if number < 900 else 100.0, 0.0)
            assert len(looked) <= LOOKS
        with pytest.raises(LimitsUnavailable):
            add(1000, 900.0, 0.0)
        assert len(looked) <= LOOKS + MOST_LOOKS
        refused = 0
        for number in range(1000, 1100):  # those that are over are the last to be looked at
            while True:
                try:
                    add(number, 900.0, 200.0)
                    break
                except LimitsUnavailable:
                    refused += 1
                    assert len(looked) <= LOOKS + MOST_LOOKS
        assert refused <= 900 / MOST_LOOKS + 1
    assert table.in_use(200.0) == 1000


def test_the_short_way_is_for_windows_alone(clock: list[float]) -> None:
    limiter = RateLimiter()
    bucket = TokenRecord(1, "robot", rates=parse_rates(["1/minute", "9/hour"]), burst=2)
    assert [limiter.hit(bucket) for _ in range(2)][-1] == LimitState(2, 0, round(clock[0]) + 120)
    with pytest.raises(LimitExceeded, match="1 per minute"):
        limiter.hit(bucket)


def test_a_burst_is_let_in_at_once_and_earned_back(clock: list[float], table: Table) -> None:
    counters = Counters(table)
    subject = subject_of("robot", parse_rates(["2/second", "1000/day"]), burst=6)
    assert [counters.hit(subject)[0] == 0 for _ in range(8)] == [True] * 6 + [False] * 2
    wait_s, words, state = counters.hit(subject)
    assert wait_s == pytest.approx(0.5)
    assert (words, state.limit, state.remaining) == ("2 per second", 6, 0)
    clock[0] += 1.0
    assert [counters.hit(subject)[0] == 0 for _ in range(3)] == [True, True, False]
    clock[0] += 60
    assert [counters.hit(subject)[0] == 0 for _ in range(7)] == [True] * 6 + [False]


def test_places_are_held_and_given_back() -> None:
    limiter = RateLimiter()
    one = TokenRecord(1, "robot", max_concurrency=2)
    assert limiter.take_place(one)
    taken = limiter.take_place(one)
    assert taken
    with pytest.raises(LimitExceeded, match="2 requests at once"):
        limiter.take_place(one)
    limiter.give_back_place(taken)
    assert limiter.take_place(one)
    assert not limiter.take_place(TokenRecord(2, "free"))


def test_places_that_are_held_count_when_the_limits_change() -> None:
    limiter = RateLimiter()
    record = TokenRecord(1, "robot", max_concurrency=1)
    held = limiter.take_place(record)
    record.owner.version += 1
    with pytest.raises(LimitExceeded, match="1 requests at once"):
        limiter.take_place(record)
    with pytest.raises(LimitExceeded, match="1 requests at once"):
        limiter.take_place(TokenRecord(1, "robot", max_concurrency=1))
    limiter.give_back_place(held)
    assert limiter.take_place(TokenRecord(1, "robot", max_concurrency=1))


def test_rates_are_parsed() -> None:
    assert parse_rates(["100/second", "10000 per 2 hours"]) == (parse("100/second"), parse("10000/2 hours"))
    assert parse_rates(["1/second; 5/minute"]) == (parse("1/second"), parse("5/minute"))
    assert parse_rates([]) == ()


@pytest.mark.parametrize(
    "rate", ["", "often", "0/second", "-1/second", "1/fortnight", "9" * 300 + "/day", "1/second;x"]
)
def test_a_rate_that_is_none_is_named(rate: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        parse_rates(["5/second", rate])
    assert repr(rate[:60]) in caught.value.message
