"""The counts of windows, buckets and budgets, of one process or of all workers of a machine."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from core.access.own_windows import BegunWindows
from core.access.slots import STRIPES, SharedMemory, SlotTable
from core.access.windows import KEY_BYTES, NOTHING, Bucket, Budget, Kept, Limit, LimitState, Stored, Subject

_KEPT = struct.Struct("=dqII")
SLOT_BYTES = KEY_BYTES + _KEPT.size
_AFTER_REQUESTS = 1 << 62
_ROW = np.dtype([("key", f"V{KEY_BYTES}"), ("ends_s", "<f8"), ("index", "<i8"), ("counts", "<u4", (2,))])


class Table(Protocol):
    """What is kept of limits, by their keys, in stripes.

    Bounded: the room of windows that have ended is given to others.
    """

    shared: bool
    """Whether other processes read and write it too, and so whether it must be locked."""

    def lock(self, stripe: int) -> None:
        """Keep the others from a stripe. Raises LimitsUnavailable."""

    def unlock(self, stripe: int) -> None:
        """Let the others have it."""

    def read(self, stripe: int, key: bytes) -> tuple[Any, Stored]:
        """Where a limit is kept, None for nowhere yet, and what is kept of it."""

    def write(self, stripe: int, key: bytes, at: Any, kept: Stored, now_s: float) -> None:
        """Keep that, where `read` said. Raises LimitsUnavailable where a new one finds no room."""

    def in_use(self, now_s: float) -> int:
        """How many limits are kept that still have an effect."""

    def begun(self, subjects: Iterable[Subject]) -> BegunWindows | None:
        """The short way to these subjects' limits; None where there is none."""


class SharedWindows:
    """Those of all workers of a machine, in memory that they share; see Table."""

    shared = True

    def __init__(self, memory: SharedMemory, offset: int, slots: int) -> None:
        self._table = SlotTable(memory, offset, slots, SLOT_BYTES)
        self._rows = np.frombuffer(memory.map, _ROW, slots, offset)
        self.lock, self.unlock = memory.lock, memory.unlock

    def read(self, stripe: int, key: bytes) -> tuple[int | None, Stored]:
        """See Table."""
        at = self._table.find(stripe, key)
        return at, NOTHING if at is None else _KEPT.unpack_from(self._table.memory, at + KEY_BYTES)

    def write(self, stripe: int, key: bytes, at: int | None, kept: Stored, now_s: float) -> None:
        """See Table."""
        if at is None:
            first, count = self._table.stripe_slots(stripe)
            at = self._table.claim(stripe, self._rows["ends_s"][first : first + count] <= now_s, key)
        _KEPT.pack_into(self._table.memory, at + KEY_BYTES, *kept)

    def in_use(self, now_s: float) -> int:
        """See Table."""
        return int(np.count_nonzero(self._rows["ends_s"] > now_s))

    def begun(self, subjects: Iterable[Subject]) -> None:
        """See Table. What others may change at any time is looked for each time."""


class Counters:
    """Asks all limits of some subjects at once, and counts in all of them or in none.

    Every call takes some microseconds and may raise LimitsUnavailable: no room in a stripe, or its lock is not to
    be had.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self.begun = table.begun

    def hit(self, *subjects: Subject, count: bool = True) -> tuple[float, str, LimitState]:
        """Count one request, or none: seconds to wait (0 where it is let in), for which limit, where it stands.

        Without `count` it only tells. All limits of all subjects are asked, then all are counted, or none.
        """
        locked = self._lock(subjects)
        try:
            now_s = time.time()
            state = self._count(subjects, now_s) if count else None
            return self._look(subjects, now_s, refused=count) if state is None else (0.0, "", state)
        finally:
            for stripe in locked:
                self._table.unlock(stripe)

    def left(self, subject: Subject) -> list[int]:
        """How much of each limit of a subject is left, in the order of its limits; counts nothing."""
        stripe = subject.stripe % STRIPES
        self._table.lock(stripe)
        try:
            now_s = time.time()
            kept = [limit.rolled(self._read(stripe, limit)[1], now_s) for limit in subject.limits]
        finally:
            self._table.unlock(stripe)
        return [limit.left(one, now_s) for limit, one in zip(subject.limits, kept, strict=True)]

    def _lock(self, subjects: Sequence[Subject]) -> list[int]:
        locked: list[int] = []
        if not self._table.shared:
            return locked
        # In one order everywhere, so that two processes cannot wait for each other.
        for stripe in sorted({subject.stripe % STRIPES for subject in subjects}):
            try:
                self._table.lock(stripe)
            except BaseException:
                for one in locked:
                    self._table.unlock(one)
                raise
            locked.append(stripe)
        return locked

    def _count(self, subjects: Sequence[Subject], now_s: float) -> LimitState | None:
        """Count one request in all limits: where it stands then; None where one refuses it: none is counted."""
        table = self._table
        asked: list[tuple[int, Limit, Any, Stored]] = []
        states: list[tuple[Limit, Stored, int]] = []
        for subject in subjects:
            stripe = subject.stripe % STRIPES
            for limit in subject.limits:
                at, was = table.read(stripe, limit.key)
                one = limit.one_more(was, now_s)
                if one is None:
                    return None
                kept, left = one
                asked.append((stripe, limit, at, kept))
                states.append((limit, kept, left))
        for stripe, limit, at, kept in asked:
            table.write(stripe, limit.key, at, kept, now_s)
        return tightest(states, now_s)

    def _look(self, subjects: Sequence[Subject], now_s: float, *, refused: bool) -> tuple[float, str, LimitState]:
        """Where one request would stand, uncounted; see `hit`. `refused`: it was asked for, and is not let in."""
        asked, wait_s, words = [], 0.0, ""
        for subject in subjects:
            stripe = subject.stripe % STRIPES
            for limit in subject.limits:
                at, was = self._read(stripe, limit)
                kept = limit.rolled(was, now_s)
                limit_wait_s = limit.wait_s(kept, now_s)
                if limit_wait_s > wait_s:  # the longest: earlier, another limit would still refuse
                    wait_s, words = limit_wait_s, limit.words
                # Where the clock was set back, a bucket is full sooner than is written; else it would stay so.
                if refused and isinstance(limit, Bucket) and at is not None and kept.ends_s < was.ends_s:
                    self._table.write(stripe, limit.key, at, kept, now_s)
                asked.append((limit, kept, limit.left(kept, now_s)))
        return wait_s, words, tightest(asked, now_s)

    def use(self, subject: Subject, used: Iterable[tuple[Budget, int]]) -> None:
        """Count what was used of budgets."""
        self._change(subject, ((budget, more, 0) for budget, more in used))

    def raise_to(self, subject: Subject, used: Iterable[tuple[Budget, int]]) -> None:
        """Let budgets be used up at least as far as that."""
        self._change(subject, ((budget, 0, least) for budget, least in used))

    def _change(self, subject: Subject, changes: Iterable[tuple[Budget, int, int]]) -> None:
        stripe = subject.stripe % STRIPES
        self._table.lock(stripe)
        try:
            now_s = time.time()
            for budget, more, least in changes:
                at, was = self._read(stripe, budget)
                kept = budget.with_more(budget.rolled(was, now_s), more)
                kept = budget.with_more(kept, max(0, least - kept.number))
                self._table.write(stripe, budget.key, at, kept, now_s)
        finally:
            self._table.unlock(stripe)

    def _read(self, stripe: int, limit: Limit) -> tuple[Any, Kept]:
        at, was = self._table.read(stripe, limit.key)
        return at, Kept._make(was)

    def in_use(self) -> int:
        """How many limits are counted that still have an effect."""
        return self._table.in_use(time.time())


def tightest(states: Sequence[tuple[Limit, Stored, int]], now_s: float) -> LimitState:
    """Of limits, with what is kept and left of each, the one with the least left; those of requests go first."""
    found, least = states[0], _rank(states[0])
    for one in states[1:]:
        if (rank := _rank(one)) < least:
            found, least = one, rank
    limit, kept, left = found
    return limit.state(kept, now_s, left)


def _rank(state: tuple[Limit, Stored, int]) -> int:
    return state[2] if state[0].metric == "requests" else state[2] + _AFTER_REQUESTS
