"""Rate limits and places of access tokens and of sign-in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from core.access import counters, places
from core.access.counters import Counters, SharedWindows
from core.access.own_windows import BegunWindows, OwnWindows
from core.access.places import OwnPlaces, Place, Places, SharedPlaces
from core.access.records import TokenRecord
from core.access.redis_limits import RedisLimits
from core.access.slots import STRIPES, SharedMemory, new_memory_file
from core.access.windows import Budget, LimitState, Subject, subject_of
from core.errors import LimitExceeded, LimitsUnavailable
from core.metrics import Counts

_SUBJECTS_KEPT = 65_536
_PLACES_SLOTS = 16_384


class RateUsedUp(LimitExceeded):
    """A rate is used up; the headers say where the caller stands."""

    def __init__(self, message: str, *, retry_after_s: float, state: LimitState) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.state = state

    def headers(self) -> dict[str, str]:
        """`Retry-After` and `X-RateLimit-*`."""
        limit, remaining, reset_epoch_s = map(str, self.state)
        return {
            **super().headers(),
            "x-ratelimit-limit": limit,
            "x-ratelimit-remaining": remaining,
            "x-ratelimit-reset": reset_epoch_s,
        }


@dataclass(slots=True)
class Limits:
    """A token and its tenant as they are limited, and of which state of theirs that is."""

    record: TokenRecord
    version: int
    limited: tuple[Subject, ...]
    places: tuple[tuple[str, int, Place], ...]
    """Who allows how many requests at once, as a refused caller reads it."""
    begun: BegunWindows | None = None
    """The short way to count in all limits, once there is one."""


@dataclass(frozen=True, slots=True)
class Share:
    """What the workers of one machine share of their limits, and which of its processes this one is."""

    fd: int
    slots: int
    process: int


class RateLimiter:
    """Counts requests and holds places, for this process or, with `share`, with the other workers.

    Belongs to one event loop. Where nothing can be counted, `fail_open` lets requests in; else they are refused
    with LimitsUnavailable; `counts` tells how often that was. With `redis`, rates are counted there,
    and places by this one.
    """

    def __init__(
        self,
        slots: int = 4096,
        *,
        share: Share | None = None,
        counts: Counts | None = None,
        fail_open: bool = True,
        redis: RedisLimits | None = None,
    ) -> None:
        self._redis = redis
        self._places: Places
        if share is None:
            self._counters = Counters(OwnWindows(rounded(slots)))
            self._strangers = Counters(OwnWindows(strangers_slots(slots)))
            self._places = OwnPlaces()
        else:
            slots, after = rounded(share.slots), places_end(share.slots)
            memory = SharedMemory(memory_bytes(slots), share.fd)
            self._counters = Counters(SharedWindows(memory, 0, slots))
            self._strangers = Counters(SharedWindows(memory, after, strangers_slots(slots)))
            self._places = SharedPlaces(memory, slots * counters.SLOT_BYTES, _PLACES_SLOTS, share.process)
        self._fail_open = fail_open
        self._kept: dict[int, Limits] = {}
        self._counts = counts or Counts()
        self._active: dict[int, TokenRecord] = {}

    def hit(self, record: TokenRecord) -> LimitState | None:
        """Count one request of a token and its tenant; None where neither has a rate or a budget.

        Raises RateUsedUp, and then counts nothing.
        """
        return self.hit_limits(self.of(record))

    def hit_limits(self, limits: Limits) -> LimitState | None:
        """As `hit`."""
        begun = limits.begun
        if begun is not None and (state := begun.one_more()) is not None:
            return state
        if not limits.limited:
            return None
        state = self.hit_subject(*limits.limited)
        limits.begun = self._counters.begun(limits.limited)
        return state

    def use(self, record: TokenRecord, items: int, tokens: int, engine_ms: float) -> None:
        """Count what a request has used of the budgets of its token and tenant."""
        self._active[record.id] = record
        for subject in self.subjects(record):
            used = subject.used({"items": items, "tokens": tokens, "engine_seconds": round(engine_ms * 1000)})
            if used:
                self._use(subject, used)

    def raise_to(self, subject: Subject, used: Sequence[tuple[Budget, int]]) -> None:
        """Let budgets be used up at least as far as is known from elsewhere."""
        with suppress(LimitsUnavailable):
            self._counters.raise_to(subject, used)
        if self._redis is not None:
            self._redis.raise_to(subject, used)

    def _use(self, subject: Subject, used: Sequence[tuple[Budget, int]]) -> None:
        try:
            self._counters.use(subject, used)
        except LimitsUnavailable:
            self._counts.limit_failures += 1
        if self._redis is not None:
            self._redis.use(subject, used)

    async def look_stranger(self, subject: Subject) -> float:
        """Seconds until an attempt would be let in, 0 for now, as `hit_stranger`; counts nothing."""
        if self._redis is not None:
            try:
                return (await self._redis.hit(subject, count=False))[0]
            except LimitsUnavailable:
                self._failed()
        try:
            return self._strangers.hit(subject, count=False)[0]
        except LimitsUnavailable:
            self._failed()
            return 0.0

    async def hit_stranger(self, subject: Subject) -> None:
        """Count an attempt of somebody without a token, whose names and addresses nobody bounds.

        They are counted apart from tokens: however many they are, no token's limit goes uncounted for want of
        room. Raises RateUsedUp.
        """
        await self._hit_anywhere(self._strangers, subject)

    def left(self, subject: Subject) -> Sequence[int] | None:
        """How much of each limit is left by what this machine counts, in the order of the limits; counts nothing.

        None where that is not known.
        """
        try:
            return self._counters.left(subject)
        except LimitsUnavailable:
            return None

    def hit_subject(self, *subjects: Subject) -> LimitState | None:
        """Count one request of a token or tenant. Raises RateUsedUp."""
        return self._hit(self._counters, *subjects)

    def _hit(self, table: Counters, *subjects: Subject) -> LimitState | None:
        try:
            wait_s, words, state = table.hit(*subjects)
        except LimitsUnavailable:
            self._failed()
            return None
        return _let_in(wait_s, words, state)

    @property
    def remote(self) -> bool:
        """Whether rates are counted in Redis."""
        return self._redis is not None

    def is_elsewhere(self, record: TokenRecord) -> bool:
        """Whether a hit of this token must be waited for."""
        return self._redis is not None and bool(self.subjects(record))

    async def hit_anywhere(self, record: TokenRecord) -> LimitState | None:
        """As `hit`, in Redis where there is one."""
        if self._redis is None:
            return self.hit(record)
        subjects = self.subjects(record)
        return await self._hit_anywhere(self._counters, *subjects) if subjects else None

    async def _hit_anywhere(self, table: Counters, *subjects: Subject) -> LimitState | None:
        """In Redis where there is one; while it is away, this machine counts or refuses."""
        if self._redis is not None:
            try:
                return _let_in(*await self._redis.hit(*subjects))
            except LimitsUnavailable:
                self._failed()
        return self._hit(table, *subjects)

    def take_place(self, record: TokenRecord) -> Sequence[Place]:
        """Take one of the `max_concurrency` places of the token and of its tenant, to be given back.

        Raises LimitExceeded when all are taken; then none is held.
        """
        return self.take_places(self.of(record))

    def take_places(self, limits: Limits) -> Sequence[Place]:
        """As `take_place`."""
        taken: list[Place] = []
        for whose, most, place in limits.places:
            try:
                if place.take(most):
                    taken.append(place)
                    continue
            except LimitsUnavailable:
                self._failed_to_take(taken)
                continue
            self.give_back_place(taken)
            raise LimitExceeded(f"{whose} allows {most} requests at once.", retry_after_s=1)
        return taken

    @staticmethod
    def give_back_place(taken: Sequence[Place]) -> None:
        """Give back what `take_place` took."""
        for place in taken:
            place.give_back()

    def _failed_to_take(self, taken: Sequence[Place]) -> None:
        try:
            self._failed()
        except LimitsUnavailable:
            self.give_back_place(taken)
            raise

    def counted(self) -> int:
        """How many windows of tokens and tenants are counted now."""
        return self._counters.in_use()

    def subjects(self, record: TokenRecord) -> tuple[Subject, ...]:
        """The token and its tenant, as far as they are limited."""
        return self.of(record).limited

    def of(self, record: TokenRecord) -> Limits:
        """How the token and its tenant are limited, for one request: the next may find them changed."""
        kept = self._kept.get(record.id)
        if kept is not None and kept.record is record and kept.version == record.owner.version:
            return kept
        if len(self._kept) >= _SUBJECTS_KEPT:
            self._kept.clear()
        limits = self._kept[record.id] = self._limits_of(record)
        return limits

    def _limits_of(self, record: TokenRecord) -> Limits:
        token, tenant = self.subject_of_token(record), self.subject_of_tenant(record)
        limited = tuple(subject for subject in (token, tenant) if subject.limits)
        places = tuple(
            (whose, most, self._places.of(subject))
            for whose, most, subject in (
                ("This access token", record.max_concurrency, token),
                ("The tenant of this access token", record.owner.max_concurrency, tenant),
            )
            if most is not None
        )
        return Limits(record, record.owner.version, limited, places)

    @staticmethod
    def subject_of_token(record: TokenRecord) -> Subject:
        """The limits of a token itself."""
        name, place = f"token:{record.id}", f"tenant:{record.owner.name}"
        return subject_of(name, record.rates, record.burst, record.budgets, "The access token's", place)

    @staticmethod
    def subject_of_tenant(record: TokenRecord) -> Subject:
        """The limits of a token's tenant."""
        owner = record.owner
        return subject_of(f"tenant:{owner.name}", owner.rates, owner.burst, owner.budgets, "The tenant's")

    def take_active(self) -> list[TokenRecord]:
        """The tokens with budgets that were used since the last call."""
        active, self._active = self._active, {}
        return list(active.values())

    def _failed(self) -> None:
        self._counts.limit_failures += 1
        if not self._fail_open:
            raise LimitsUnavailable("The limits cannot be counted now.", retry_after_s=1)


def _let_in(wait_s: float, words: str, state: LimitState) -> LimitState:
    if wait_s:
        raise RateUsedUp(f"{words} is used up.", retry_after_s=math.floor(wait_s) + 1, state=state)
    return state


class SharedLimits:
    """The control process's side: makes what the workers share, and clears what a dead one held."""

    def __init__(self, slots: int) -> None:
        self.slots = rounded(slots)
        self.fd = new_memory_file(memory_bytes(self.slots))
        self._memory = SharedMemory(memory_bytes(self.slots), self.fd)
        self._places = SharedPlaces(self._memory, self.slots * counters.SLOT_BYTES, _PLACES_SLOTS, 0)

    def clear(self, process: int) -> None:
        """Give back the places of a worker that has ended."""
        self._places.clear(process)

    def close(self) -> None:
        """Let go of the memory; it is gone with the last worker."""
        self._memory.close()


def rounded(slots: int) -> int:
    """The next number of slots that the stripes can share evenly."""
    return -(-slots // STRIPES) * STRIPES


def strangers_slots(slots: int) -> int:
    """How many windows there are for those without a token, beside so many for tokens."""
    return rounded(-(-slots // 4))


def places_end(slots: int) -> int:
    """Where in the workers' memory the windows of strangers begin: behind those of tokens, and the places."""
    return rounded(slots) * counters.SLOT_BYTES + _PLACES_SLOTS * places.SLOT_BYTES


def memory_bytes(slots: int) -> int:
    """How much the workers share for so many windows of tokens."""
    return places_end(slots) + strangers_slots(slots) * counters.SLOT_BYTES
