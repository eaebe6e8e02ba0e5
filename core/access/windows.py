"""What a limit lets in: pure arithmetic on what is kept of one window or bucket.

A window slides: the one before weighs as much as of it still lies under a window that ends now, as in the
library `limits` (SlidingWindowCounterRateLimiter). A bucket is the generic cell rate algorithm (ITU-T I.371):
all that is kept is when it will be full again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar, NamedTuple

from limits import RateLimitItem

from core.access.budgets import SCALE, BudgetItem, Metric, Period, bounds

KEY_BYTES = 16
_TINY_S = 1e-6


class Kept(NamedTuple):
    """What is kept of one limit of one subject. Times in seconds since the epoch; all 0 is nothing yet."""

    ends_s: float
    """When it has no effect any more and may be forgotten; of a bucket, when it is full again."""
    number: int
    """Which window, counted since the epoch; 0 for a bucket; of a budget, what is used of it."""
    before: int
    """What the window before counted; of a budget, which day or month it is."""
    hits: int


NOTHING = Kept(0.0, 0, 0, 0)
Stored = tuple[float, int, int, int]
"""The same as it lies in memory: making it a Kept takes longer than the arithmetic of most requests."""


class LimitState(NamedTuple):
    """Where a caller stands in its tightest limit, for the `X-RateLimit-*` headers."""

    limit: int
    remaining: int
    reset_epoch_s: int


@dataclass(frozen=True, slots=True)
class Window:
    """At most `amount` in any `length_s` seconds."""

    metric: ClassVar[Metric] = "requests"
    key: bytes
    amount: int
    length_s: int
    words: str

    def rolled(self, kept: Kept, now_s: float) -> Kept:
        """What is kept, as of now."""
        index = int(now_s // self.length_s)
        if kept.number == index or kept.number == index + 1:  # the latter where another clock is a little ahead
            return kept
        before = kept.hits if kept.number == index - 1 else 0
        return Kept((index + 2) * self.length_s, index, before, 0)

    def wait_s(self, kept: Kept, now_s: float) -> float:
        """Seconds until one more is let in, 0 where it is let in now. `kept` is rolled."""
        left_s = self._left_s(kept, now_s)
        if self._used(kept, left_s) < self.amount:
            return 0.0
        room = self.amount - kept.hits
        if room <= 0:  # this window must end, and then weigh less than the limit
            return left_s + (1 - self.amount / kept.hits) * self.length_s
        return max(_TINY_S, left_s - room * self.length_s / kept.before)

    def with_one_more(self, kept: Kept, now_s: float) -> Kept:
        """What is to be kept once one more was let in."""
        return Kept(kept.ends_s, kept.number, kept.before, kept.hits + 1)

    def one_more(self, was: Stored, now_s: float) -> tuple[Stored, int] | None:
        """As the function of that name, shorter for what most requests find: a window that has begun already."""
        ends_s, number, before, hits = was
        length_s = self.length_s
        if number != now_s // length_s:
            return one_more(self, was, now_s)
        hits += 1
        weighs = int(before * ((number + 1) * length_s - now_s) / length_s) if before else 0
        left = self.amount - hits - weighs
        return None if left < 0 else ((ends_s, number, before, hits), left)

    def left(self, kept: Kept, now_s: float) -> int:
        """How many more are let in now."""
        return max(0, self.amount - self._used(kept, self._left_s(kept, now_s)))

    def state(self, kept: Stored, now_s: float, left: int) -> LimitState:
        """For the headers; the reset is the end of the window."""
        return LimitState(self.amount, left, round(min((kept[1] + 1) * self.length_s, now_s + self.length_s)))

    def _left_s(self, kept: Kept, now_s: float) -> float:
        return min((kept.number + 1) * self.length_s - now_s, self.length_s)

    def _used(self, kept: Kept, left_s: float) -> int:
        before = math.floor(kept.before * left_s / self.length_s) if kept.before else 0
        return before + kept.hits


@dataclass(frozen=True, slots=True)
class Bucket:
    """At most `burst` at once, earned back at `amount` in `length_s` seconds."""

    metric: ClassVar[Metric] = "requests"
    key: bytes
    amount: int
    length_s: int
    burst: int
    words: str

    def rolled(self, kept: Kept, now_s: float) -> Kept:
        """What is kept, as of now; never more than a whole bucket is missing."""
        full_at_s = min(max(kept.ends_s, now_s), now_s + self.burst * self.length_s / self.amount)
        return Kept(full_at_s, 0, 0, 0)

    def wait_s(self, kept: Kept, now_s: float) -> float:
        """Seconds until one more is let in, 0 where it is let in now. `kept` is rolled."""
        wait_s = kept.ends_s - now_s - (self.burst - 1) * self.length_s / self.amount
        return wait_s if wait_s > _TINY_S else 0.0

    def with_one_more(self, kept: Kept, now_s: float) -> Kept:
        """What is to be kept once one more was let in."""
        return Kept(kept.ends_s + self.length_s / self.amount, 0, 0, 0)

    def one_more(self, was: Stored, now_s: float) -> tuple[Stored, int] | None:
        """See the function of that name."""
        return one_more(self, was, now_s)

    def left(self, kept: Kept, now_s: float) -> int:
        """How many more are let in now."""
        missing = math.ceil((kept.ends_s - now_s - _TINY_S) * self.amount / self.length_s)
        return max(0, self.burst - missing)

    def state(self, kept: Stored, now_s: float, left: int) -> LimitState:
        """For the headers; the reset is when the bucket is full."""
        return LimitState(self.burst, left, math.ceil(kept[0] - _TINY_S))


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `amount` of something in a calendar day or month. Requests are counted as they are let in, all else
    once it was used: then the last that is let in may use more than was left.
    """

    metric: Metric
    key: bytes
    amount: int
    period: Period
    words: str

    def rolled(self, kept: Kept, now_s: float) -> Kept:
        """What is kept, as of now."""
        index, _, ends_s = bounds(self.period, now_s)
        return kept if kept.before >= index and kept.ends_s > now_s else Kept(ends_s, 0, index, 0)

    def wait_s(self, kept: Kept, now_s: float) -> float:
        """Seconds until one more is let in, 0 where it is let in now. `kept` is rolled."""
        return 0.0 if kept.number < self.amount else max(_TINY_S, kept.ends_s - now_s)

    def with_one_more(self, kept: Kept, now_s: float) -> Kept:
        """What is to be kept once one more was let in."""
        return self.with_more(kept, 1) if self.metric == "requests" else kept

    def with_more(self, kept: Kept, more: int) -> Kept:
        """What is to be kept once so much more was used."""
        return Kept(kept.ends_s, kept.number + more, kept.before, kept.hits)

    def one_more(self, was: Stored, now_s: float) -> tuple[Stored, int] | None:
        """See the function of that name."""
        return one_more(self, was, now_s)

    def left(self, kept: Kept, now_s: float) -> int:
        """How much more may be used now, in whole units."""
        return -(-max(0, self.amount - kept.number) // SCALE[self.metric])

    def state(self, kept: Stored, now_s: float, left: int) -> LimitState:
        """For the headers; the reset is the end of the day or month."""
        return LimitState(self.amount // SCALE[self.metric], left, round(kept[0]))


Limit = Window | Bucket | Budget


def one_more(limit: Limit, was: Stored, now_s: float) -> tuple[Stored, int] | None:
    """What is to be kept once one more was let in, and how many are left then; None where none is let in."""
    kept = limit.rolled(Kept._make(was), now_s)
    if limit.wait_s(kept, now_s):
        return None
    kept = limit.with_one_more(kept, now_s)
    return kept, limit.left(kept, now_s)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever is limited, with all the limits that hold for them."""

    stripe: int
    """A number that is the same wherever this subject is counted; at least 16 random bits."""
    key: bytes
    limits: tuple[Limit, ...]
    place: bytes
    """The same for all whose limits are asked together; where Redis is a cluster, they lie on one node."""

    def used(self, taken: Mapping[Metric, int]) -> list[tuple[Budget, int]]:
        """The budgets that are counted once something was used, each with how much of it that was."""
        budgets = [limit for limit in self.limits if isinstance(limit, Budget) and limit.metric != "requests"]
        return [(budget, taken[budget.metric]) for budget in budgets if taken.get(budget.metric)]


def subject_of(
    name: str,
    rates: Sequence[RateLimitItem],
    burst: int | None = None,
    budgets: Sequence[BudgetItem] = (),
    whose: str = "",
    place: str | None = None,
) -> Subject:
    """The limits of `name`, one for each length. With `burst`, the shortest becomes a bucket of that size.

    What was counted is kept when an amount is changed: it is no part of the key. `whose` begins the words for a
    refused caller, as `The tenant's`.
    """
    tightest = {rate.get_expiry(): rate for rate in sorted(rates, key=lambda rate: rate.amount, reverse=True)}
    shortest = min(tightest, default=None)
    limits = tuple(
        _limit(name, rate, burst if length_s == shortest else None, f"{whose} rate of " if whose else "")
        for length_s, rate in tightest.items()
    )
    spent = tuple(_budget(name, item, f"{whose} budget of " if whose else "") for item in budgets)
    key = _key(name)
    return Subject(int.from_bytes(key[:4]), key, (*limits, *spent), key if place is None else _key(place))


def _limit(name: str, rate: RateLimitItem, burst: int | None, begins: str) -> Limit:
    length_s, words = rate.get_expiry(), begins + _words(rate)
    if burst is None:
        return Window(_key(f"{name}/w{length_s}"), rate.amount, length_s, words)
    return Bucket(_key(f"{name}/b{length_s}"), rate.amount, length_s, burst, words)


def _budget(name: str, item: BudgetItem, begins: str) -> Budget:
    key = _key(f"{name}/{item.metric}/{item.period}")
    return Budget(item.metric, key, item.amount * SCALE[item.metric], item.period, begins + item.words)


def _key(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def _words(rate: RateLimitItem) -> str:
    unit = rate.GRANULARITY.name
    return f"{rate.amount} per {unit}" if rate.multiples == 1 else f"{rate.amount} per {rate.multiples} {unit}s"
