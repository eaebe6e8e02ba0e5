"""Slows down whoever guesses: attempts are counted by address, and wrong ones by user name."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from core.access.limits import RateLimiter
from core.access.rates import parse_rates
from core.access.windows import Subject, subject_of
from core.errors import LimitExceeded, LimitsUnavailable, Unauthenticated
from core.settings import AccessSettings

MOST_WAITING: Final = 16
"""So many attempts for one user name may wait for each other in one process."""


def whose(address: str) -> str:
    """The address, or of IPv6 its /64: whoever has one of those has them all."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Attempts:
    """Attempts of addresses, and wrong passwords and codes of user names, whether there is such a user or not.

    Counted where rates are: by this machine, or in Redis for several. Belongs to one event loop. `access` may be
    replaced when the settings are read again.
    """

    def __init__(self, limiter: RateLimiter, access: AccessSettings) -> None:
        self._limiter = limiter
        self._turns: dict[str, _Turn] = {}
        self.access = access

    async def throttle(self, what: str, address: str, rate: str | None = None) -> None:
        """Count one attempt from an address, wherever it arrives. Raises LimitExceeded."""
        subject = subject_of(f"{what}:{whose(address)}", parse_rates([rate or self.access.login_rate]))
        try:
            await self._limiter.hit_stranger(subject)
        except LimitExceeded as error:
            message = "Too many attempts from this address; wait before the next."
            raise LimitExceeded(message, retry_after_s=error.retry_after_s) from None

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """One attempt; an Unauthenticated that leaves the block counts as wrong. Raises LimitExceeded.

        Attempts for one name go one after the other: were they tried at once, all of them would be past the
        question whether there were too many before the first was found wrong.
        """
        turn = self._turns.setdefault(name, _Turn())
        if turn.waiting >= MOST_WAITING:
            raise LimitExceeded("Too many attempts for this user at once; wait before the next.", retry_after_s=1)
        turn.waiting += 1
        try:
            async with turn.lock:
                await self._refuse(name)
                try:
                    yield
                except Unauthenticated:
                    with suppress(LimitExceeded, LimitsUnavailable):  # wrong it is, counted or not
                        await self._limiter.hit_stranger(self._failures_of(name))
                    raise
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[name]

    async def _refuse(self, name: str) -> None:
        wait_s = await self._limiter.look_stranger(self._failures_of(name))
        if wait_s:
            message = "Too many wrong passwords for this user; wait before the next."
            raise LimitExceeded(message, retry_after_s=math.floor(wait_s) + 1)

    def _failures_of(self, name: str) -> Subject:
        return subject_of(f"user:{name!r}", parse_rates([self.access.user_failure_rate]))
