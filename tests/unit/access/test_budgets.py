"""Budgets, and limits that a token and its tenant have together."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from core.access.budgets import bounds, parse_budgets
from core.access.limits import RateLimiter
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.access.tenants import Tenant
from core.errors import LimitExceeded, Unprocessable


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [moment("2027-02-10T12:00:00")]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def tenant(*rates: str, budgets: tuple[str, ...] = (), places: int | None = None) -> Tenant:
    made = Tenant("red")
    made.rates, made.budgets, made.max_concurrency = parse_rates(rates), parse_budgets(budgets), places
    return made


def token(token_id: int, owner: Tenant, *rates: str, budgets: tuple[str, ...] = ()) -> TokenRecord:
    return TokenRecord(token_id, "robot", owner, rates=parse_rates(rates), budgets=parse_budgets(budgets))


def let_in(limiter: RateLimiter, record: TokenRecord, times: int) -> int:
    passed = 0
    for _ in range(times):
        try:
            limiter.hit(record)
        except LimitExceeded:
            continue
        passed += 1
    return passed


@pytest.mark.parametrize(
    ("period", "now", "begin", "end"),
    [
        ("day", "2027-02-28T23:59:59", "2027-02-28", "2027-03-01"),
        ("month", "2027-02-28T23:59:59", "2027-02-01", "2027-03-01"),
        ("month", "2027-12-31T00:00:00", "2027-12-01", "2028-01-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_days_and_months_are_those_of_the_calendar(period: str, now: str, begin: str, end: str) -> None:
    index, begins_s, ends_s = bounds(period, moment(now))  # type: ignore[arg-type]
    assert (begins_s, ends_s) == (moment(begin), moment(end))
    assert bounds(period, ends_s)[0] == index + 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5 requests",
        "5 requests/hour",
        "0 items/day",
        "-1 items/day",
        "5 cats/day",
        "9" * 14 + " items/day",
    ],
)
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(Unprocessable, match="requests/day"):
        parse_budgets([text])


def test_of_two_budgets_for_the_same_the_smaller_holds() -> None:
    (budget,) = parse_budgets(["50 items per month", "20 items/month", "30 items / month"])
    assert (budget.amount, budget.words) == (20, "20 items per month")


def test_a_budget_of_requests_is_exact_and_begins_anew(clock: list[float]) -> None:
    limiter = RateLimiter()
    record = token(1, tenant(), budgets=("5 requests/day", "8 requests/month"))
    assert let_in(limiter, record, 9) == 5
    with pytest.raises(
        LimitExceeded, match="The access token's budget of 5 requests per day is used up"
    ) as caught:
        limiter.hit(record)
    assert caught.value.retry_after_s == 12 * 3600 + 1
    clock[0] += 86_400
    assert let_in(limiter, record, 9) == 3
    with pytest.raises(LimitExceeded, match="8 requests per month"):
        limiter.hit(record)
    clock[0] = moment("2027-03-01T00:00:00")
    assert let_in(limiter, record, 9) == 5


def test_what_was_used_counts_afterwards(clock: list[float]) -> None:
    limiter = RateLimiter()
    record = token(1, tenant(budgets=("10 items/day",)), "100/hour", budgets=("2 engine_seconds/month",))
    state = limiter.hit(record)
    assert state is not None
    assert (state.limit, state.remaining) == (100, 99)  # of requests, where there are limits of those
    limiter.use(record, items=9, tokens=0, engine_ms=1500)
    assert limiter.hit(record) is not None
    limiter.use(record, items=9, tokens=0, engine_ms=0)
    with pytest.raises(LimitExceeded, match="The tenant's budget of 10 items per day is used up"):
        limiter.hit(record)
    clock[0] += 86_400
    assert limiter.hit(record) is not None
    limiter.use(record, items=0, tokens=0, engine_ms=500)
    with pytest.raises(LimitExceeded, match="The access token's budget of 2 engine seconds per month"):
        limiter.hit(record)


def test_a_tenants_rate_holds_for_all_its_tokens_and_a_refusal_counts_nowhere(clock: list[float]) -> None:
    limiter = RateLimiter()
    owner = tenant("10/hour")
    narrow, wide, other = (
        token(1, owner, "3/hour"),
        token(2, owner, "100/hour"),
        token(3, Tenant("blue"), "100/hour"),
    )
    assert let_in(limiter, narrow, 20) == 3
    with pytest.raises(LimitExceeded, match="The access token's rate of 3 per hour"):
        limiter.hit(narrow)
    assert let_in(limiter, wide, 20) == 7
    with pytest.raises(LimitExceeded, match="The tenant's rate of 10 per hour"):
        limiter.hit(wide)
    assert let_in(limiter, other, 20) == 20
    owner.rates = parse_rates(["1000/hour"])
    owner.version += 1
    state = limiter.hit(wide)
    assert state is not None
    assert state.remaining == 100 - 8


def test_places_of_a_tenant_are_shared_by_its_tokens() -> None:
    limiter = RateLimiter()
    owner = tenant(places=2)
    one = TokenRecord(1, "robot", owner, max_concurrency=1)
    two = TokenRecord(2, "robot", owner)
    first = limiter.take_place(one)
    second = limiter.take_place(two)
    with pytest.raises(LimitExceeded, match="This access token allows 1"):
        limiter.take_place(one)
    limiter.give_back_place(first)
    third = limiter.take_place(two)
    with pytest.raises(LimitExceeded, match="The tenant of this access token allows 2"):
        limiter.take_place(one)  # its own place is given back
    limiter.give_back_place(second)
    assert limiter.take_place(one)
    limiter.give_back_place(third)
