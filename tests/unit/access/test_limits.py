from __future__ import annotations

import threading
import time

import pytest
from limits import parse

from core.access.limits import RateLimiter
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.errors import LimitExceeded, Unprocessable


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
    assert limiter.state(record()) is None


def test_a_rate_holds_exactly_and_says_where_it_stands(clock: list[float]) -> None:
    limiter = RateLimiter()
    states = [limiter.hit(record("3/minute")) for _ in range(3)]
    assert [(state.limit, state.remaining) for state in states if state] == [(3, 2), (3, 1), (3, 0)]
    with pytest.raises(LimitExceeded, match="3 per minute") as caught:
        limiter.hit(record("3/minute"))
    assert caught.value.retry_after_s is not None
    assert 1 <= caught.value.retry_after_s <= 61
    state = limiter.state(record("3/minute"))
    assert state is not None
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
    limiter = RateLimiter()
    for token_id in range(20_000):
        limiter.hit(record("1/second", token_id=token_id))
        clock[0] += 0.01
    assert threading.active_count() == threads
    assert len(limiter._limiter.storage.storage) < 5000


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
