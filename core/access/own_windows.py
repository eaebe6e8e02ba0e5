"""The counts of one process alone: no shared memory, no locks, and a short way for what most requests find."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from core.access.slots import STRIPES
from core.access.windows import NOTHING, LimitState, Stored, Subject, Window
from core.errors import LimitsUnavailable

_NOWHERE: Final = -1
_NO_LIMIT: Final = 1 << 62
LOOKS: Final = 2
"""Rows looked at for each new one: those that are over go twice as fast as others come."""
MOST_LOOKS: Final = 64
"""And where there is no room. A request must not wait for a look at all of them: 20 ms at the most slots."""
_new = tuple.__new__  # in half the time of a NamedTuple's own


class Row:
    """What is kept of one limit; see Kept."""

    __slots__ = ("before", "ends_s", "hits", "number")

    def __init__(self, kept: Stored) -> None:
        self.ends_s, self.number, self.before, self.hits = kept


class OwnWindows:
    """Rows by key, bounded as those of memory that is shared are; see Table."""

    shared = False

    def __init__(self, slots: int) -> None:
        self._stripes: tuple[dict[bytes, Row], ...] = tuple({} for _ in range(STRIPES))
        self._turns: tuple[deque[bytes], ...] = tuple(deque() for _ in range(STRIPES))
        """The keys of each stripe, in the order in which they are looked at."""
        self._most = slots // STRIPES

    def lock(self, stripe: int) -> None:
        """See Table."""

    def unlock(self, stripe: int) -> None:
        """See Table."""

    def read(self, stripe: int, key: bytes) -> tuple[Row | None, Stored]:
        """See Table."""
        row = self._stripes[stripe].get(key)
        return (None, NOTHING) if row is None else (row, (row.ends_s, row.number, row.before, row.hits))

    def write(self, stripe: int, key: bytes, at: Row | None, kept: Stored, now_s: float) -> None:
        """See Table."""
        if at is None:
            rows, turns = self._stripes[stripe], self._turns[stripe]
            _forget(rows, turns, LOOKS, now_s)
            if len(rows) >= self._most:
                _forget(rows, turns, MOST_LOOKS, now_s)
            if len(rows) >= self._most:
                raise LimitsUnavailable("The server counts as many limits as it can.", retry_after_s=1)
            rows[key] = Row(kept)
            turns.append(key)
        else:
            at.ends_s, at.number, at.before, at.hits = kept

    def in_use(self, now_s: float) -> int:
        """See Table."""
        return sum(row.ends_s > now_s for rows in self._stripes for row in rows.values())

    def begun(self, subjects: Iterable[Subject]) -> BegunWindows | None:
        """See Table."""
        found: list[tuple[int, int, Row]] = []
        for subject in subjects:
            rows = self._stripes[subject.stripe % STRIPES]
            for limit in subject.limits:
                row = rows.get(limit.key)
                if row is None or not isinstance(limit, Window):
                    return None
                found.append((limit.amount, limit.length_s, row))
        return BegunWindows(found)


def _forget(rows: dict[bytes, Row], turns: deque[bytes], looks: int, now_s: float) -> None:
    """Look at the next so many, round and round, and remove those that have no effect any more."""
    for _ in range(min(looks, len(turns))):
        key = turns.popleft()
        if rows[key].ends_s <= now_s:
            rows.pop(key).number = _NOWHERE  # whoever still holds it finds it over
        else:
            turns.append(key)


class BegunWindows:
    """All limits of a caller, where they are windows that are counted already and need not be looked for."""

    __slots__ = ("_from_s", "_rows", "_until_s", "_windows")

    def __init__(self, windows: Iterable[tuple[int, int, Row]]) -> None:
        """`windows`: of each one its amount, its length in seconds, and what is kept of it."""
        begun = [
            (amount, length_s, row, row.number, (row.number + 1) * length_s) for amount, length_s, row in windows
        ]
        self._windows = tuple(begun)
        self._rows = tuple([row for _, _, row, _, _ in begun])
        self._from_s = max([ends_s - length_s for _, length_s, _, _, ends_s in begun], default=0)
        self._until_s = min([ends_s for _, _, _, _, ends_s in begun], default=0)

    def one_more(self) -> LimitState | None:
        """Count one request in all of them: where it stands then. None, and nothing is counted, where a window is
        over or refuses: then the long way tells.

        The arithmetic is that of `Window.one_more` and `tightest`, in one piece: what costs is how much code
        a request has to touch.
        """
        now_s = time.time()
        if not self._from_s <= now_s < self._until_s:
            return None
        least, most, reset_s = _NO_LIMIT, 0, 0
        for amount, length_s, row, number, ends_s in self._windows:
            left = amount - row.hits - 1
            if row.before:
                left -= int(row.before * (ends_s - now_s) / length_s)
            if left < 0 or row.number != number:
                return None
            if left < least:
                least, most, reset_s = left, amount, ends_s
        for row in self._rows:
            row.hits += 1
        return _new(LimitState, (most, least, reset_s))
