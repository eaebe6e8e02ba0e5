"""The counts of one process alone: no shared memory, no locks, and a short way for what most requests find."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from core.access.slots import STRIPES
from core.access.windows import NOTHING, LimitState, Stored, Subject, Window
from core.errors import LimitsUnavailable

_NOWHERE: Final = -1
_NO_LIMIT: Final = 1 << 62
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
            rows = self._stripes[stripe]
            if len(rows) >= self._most:
                _forget(rows, now_s)
            if len(rows) >= self._most:
                raise LimitsUnavailable("The server counts as many limits as it can.", retry_after_s=1)
            rows[key] = Row(kept)
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


def _forget(rows: dict[bytes, Row], now_s: float) -> None:
    """Remove those that have no effect any more."""
    for key in [key for key, row in rows.items() if row.ends_s <= now_s]:
        rows.pop(key).number = _NOWHERE  # whoever still holds it finds it over


class BegunWindows:
    """All limits of a caller, where they are windows that are counted already and need not be looked for."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[tuple[int, int, Row]]) -> None:
        self._rows = rows
        """Of each window its amount, its length in seconds, and what is kept of it."""

    def one_more(self) -> LimitState | None:
        """Count one request in all of them: where it stands then. None, and nothing is counted, where a window is
        over or refuses: then the long way tells.

        The arithmetic is that of `Window.one_more` and `tightest`, in one piece: what costs is how much code
        a request has to touch.
        """
        now_s = time.time()
        least, most, reset_s = _NO_LIMIT, 0, 0
        for amount, length_s, row in self._rows:
            if row.number != now_s // length_s:
                return None
            ends_s = (row.number + 1) * length_s
            left = amount - row.hits - 1
            if row.before:
                left -= int(row.before * (ends_s - now_s) / length_s)
            if left < 0:
                return None
            if left < least:
                least, most, reset_s = left, amount, ends_s
        for _, _, row in self._rows:
            row.hits += 1
        return _new(LimitState, (most, least, reset_s))
