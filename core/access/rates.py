"""Rates as administrators write them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from limits import RateLimitItem, parse_many

from core.errors import Unprocessable

_MAX_AMOUNT = 10**9
_MAX_WINDOW_S = 366 * 86_400


def parse_rates(rates: Sequence[str]) -> tuple[RateLimitItem, ...]:
    """Parse rates such as `100/second` and `10000 per 2 hours`. Raises Unprocessable, naming the bad one."""
    return tuple(item for rate in rates for item in _parse(rate))


@lru_cache(maxsize=1024)
def _parse(rate: str) -> tuple[RateLimitItem, ...]:
    try:
        items = tuple(parse_many(rate)) if len(rate) <= 200 else ()
    except ValueError:
        items = ()
    if not items or not all(map(_usable, items)):
        raise Unprocessable(f"The rate {rate[:60]!r} is not understood; write it as 100/second or 10000/day.")
    return items


def _usable(item: RateLimitItem) -> bool:
    return 0 < item.amount <= _MAX_AMOUNT and item.get_expiry() <= _MAX_WINDOW_S
