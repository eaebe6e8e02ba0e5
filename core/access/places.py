"""Requests under way by token, for `max_concurrency`, of one process or of all workers of a machine."""

from __future__ import annotations

import struct
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np

from core.access.slots import STRIPES, SharedMemory, SlotTable
from core.access.windows import KEY_BYTES, Subject

MAX_PROCESSES = 128
"""64 workers, and as many more while they are replaced."""
_MOST = 0xFFFF
_COUNTS = struct.Struct(f"={MAX_PROCESSES}H")
_COUNT = struct.Struct("=H")
SLOT_BYTES = KEY_BYTES + _COUNTS.size
_ROW = np.dtype([("key", f"V{KEY_BYTES}"), ("counts", "<u2", (MAX_PROCESSES,))])
_LOCKS = STRIPES  # behind those of the counters


class Place(Protocol):
    """The places of one token or tenant."""

    def take(self, most: int) -> bool:
        """Take one of `most`; false where all are taken. Raises LimitsUnavailable."""

    def give_back(self) -> None:
        """Give one back that was taken in this process."""


class Places(Protocol):
    """Those of everybody."""

    def of(self, subject: Subject) -> Place:
        """Those of one. Whoever holds a place holds this too."""


class OwnPlace:
    """See Place."""

    __slots__ = ("__weakref__", "_taken")

    def __init__(self) -> None:
        self._taken = 0

    def take(self, most: int) -> bool:
        """See Place."""
        if self._taken >= most:
            return False
        self._taken += 1
        return True

    def give_back(self) -> None:
        """See Place."""
        self._taken -= 1


class OwnPlaces:
    """Those of one process, for as long as somebody holds them; see Places."""

    def __init__(self) -> None:
        self._places: WeakValueDictionary[bytes, OwnPlace] = WeakValueDictionary()

    def of(self, subject: Subject) -> OwnPlace:
        """See Places."""
        return self._places.setdefault(subject.key, OwnPlace())


class SharedPlaces:
    """Those of all workers: a slot for each token, in it a count for each worker.

    A worker writes its own counts alone, so those of one that died can be cleared by who keeps the workers.
    """

    def __init__(self, memory: SharedMemory, offset: int, slots: int, process: int) -> None:
        self._memory = memory
        self._process = process
        self._table = SlotTable(memory, offset, slots, SLOT_BYTES)
        self._rows = np.frombuffer(memory.map, _ROW, slots, offset)

    def of(self, subject: Subject) -> SharedPlace:
        """See Places."""
        return SharedPlace(self, subject)

    def take(self, subject: Subject, most: int) -> bool:
        """See Place."""
        stripe = subject.stripe % STRIPES
        self._memory.lock(_LOCKS + stripe)
        try:
            at = self._table.find(stripe, subject.key)
            if at is None:
                first, count = self._table.stripe_slots(stripe)
                free = np.logical_not(self._rows["counts"][first : first + count].any(axis=1))
                at = self._table.claim(stripe, free, subject.key)
            counts = _COUNTS.unpack_from(self._table.memory, at + KEY_BYTES)
            if sum(counts) >= most or counts[self._process] == _MOST:
                return False
            self._set(at, counts[self._process] + 1)
            return True
        finally:
            self._memory.unlock(_LOCKS + stripe)

    def give_back(self, subject: Subject) -> None:
        """See Place. Needs no lock: the slot cannot be given away while this process's count is not 0."""
        at = self._table.find(subject.stripe % STRIPES, subject.key)
        if at is not None:
            (count,) = _COUNT.unpack_from(self._table.memory, self._own(at))
            self._set(at, max(0, count - 1))

    def clear(self, process: int) -> None:
        """Give back what a process had that is gone."""
        self._rows["counts"][:, process] = 0

    def _own(self, at: int) -> int:
        return at + KEY_BYTES + self._process * _COUNT.size

    def _set(self, at: int, count: int) -> None:
        _COUNT.pack_into(self._table.memory, self._own(at), count)


class SharedPlace:
    """See Place."""

    __slots__ = ("_places", "_subject")

    def __init__(self, places: SharedPlaces, subject: Subject) -> None:
        self._places, self._subject = places, subject

    def take(self, most: int) -> bool:
        """See Place."""
        return self._places.take(self._subject, most)

    def give_back(self) -> None:
        """See Place."""
        self._places.give_back(self._subject)
