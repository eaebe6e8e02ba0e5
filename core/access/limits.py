"""Rate limits of access tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from core.access.records import TokenRecord
from core.errors import LimitExceeded

_SWEEP_EVERY = 4096


@dataclass(frozen=True, slots=True)
class LimitState:
    """Where a token stands in its tightest window, for the `X-RateLimit-*` headers."""

    limit: int
    remaining: int
    reset_epoch_s: int


class RateLimiter:
    """Counts requests a token over sliding windows, in this process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._counters = _Counters()
        self._limiter = SlidingWindowCounterRateLimiter(self._counters)

    def hit(self, record: TokenRecord) -> LimitState | None:
        """Count one request; None where the token has no rate. Raises LimitExceeded, and then counts nothing."""
        rates = record.rates
        if not rates:
            return None
        key = str(record.id)
        # A request that one window refuses must not use up another.
        if len(rates) > 1 and not all(self._limiter.test(rate, key) for rate in rates):
            raise self._exceeded(rates, key)
        if not all(self._limiter.hit(rate, key) for rate in rates):
            raise self._exceeded(rates, key)
        return self._tightest(rates, key)

    def state(self, record: TokenRecord) -> LimitState | None:
        """Where the token stands, without counting anything."""
        return self._tightest(record.rates, str(record.id)) if record.rates else None

    def _tightest(self, rates: Sequence[RateLimitItem], key: str) -> LimitState:
        windows = [self._window(rate, key) for rate in rates]
        return min((window.state() for window in windows), key=lambda state: state.remaining)

    def _exceeded(self, rates: Sequence[RateLimitItem], key: str) -> LimitExceeded:
        # The longest of the waits: earlier, another window would still refuse.
        rate, wait_s = max(((rate, self._window(rate, key).wait_s()) for rate in rates), key=lambda pair: pair[1])
        message = f"The access token's rate of {_words(rate)} is used up."
        return LimitExceeded(message, retry_after_s=math.floor(wait_s) + 1)

    def _window(self, rate: RateLimitItem, key: str) -> _Window:
        length_s = rate.get_expiry()
        before, _, now, ttl_s = self._counters.get_sliding_window(rate.key_for(key), length_s)
        return _Window(rate.amount, length_s, before, now, left_s=ttl_s - length_s)


@dataclass(frozen=True, slots=True)
class _Window:
    """One window and the one before it, whose count weighs as much as of it still lies under a sliding window."""

    limit: int
    length_s: int
    count_before: int
    count: int
    left_s: float

    def state(self) -> LimitState:
        """For the headers; the reset is the end of the window."""
        used = math.floor(self.count_before * self.left_s / self.length_s) + self.count
        return LimitState(self.limit, max(0, self.limit - used), round(time.time() + self.left_s))

    def wait_s(self) -> float:
        """Seconds after which, and not before, one more request is let in; below 0 where it would be now.

        The library's own answer looks for the next drop of either count, which may not be enough.
        """
        room = self.limit - self.count
        if room <= 0:  # this window must end, and then weigh less than the limit
            return self.left_s + (1 - self.limit / self.count) * self.length_s
        return self.left_s - room * self.length_s / self.count_before if self.count_before else -1.0


class _Counters(MemoryStorage):
    """The library's counters without its timer thread, which walks every key a hundred times a second."""

    def __init__(self) -> None:
        super().__init__()
        self.timer.cancel()
        self.timer.join()
        self._until_sweep = _SWEEP_EVERY

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count = self.get(key) + amount
        if count == amount:
            self.expirations[key] = time.time() + expiry
            self._sweep_sometimes()
        self.storage[key] = count
        return count

    def _sweep_sometimes(self) -> None:
        # Each new key pays for a share of the sweep, so that keys of windows long gone do not pile up.
        self._until_sweep -= 1
        if self._until_sweep <= 0:
            for key in list(self.expirations):
                self.get(key)  # drops the key where it has expired
            self._until_sweep = max(_SWEEP_EVERY, len(self.expirations))


def _words(rate: RateLimitItem) -> str:
    unit = rate.GRANULARITY.name
    return f"{rate.amount} per {unit}" if rate.multiples == 1 else f"{rate.amount} per {rate.multiples} {unit}s"
