"""A flight recorder: which requests were in an engine when its process died.

The host writes the ids of each batch into shared memory before it runs and wipes them after; whoever sent the
requests holds the same memory and reads it once the host is gone.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

from core.serving.arena import map_file, shared_file

IDS_PER_SLOT = 1023
_SLOT_BYTES = 8 * (IDS_PER_SLOT + 1)


class FlightRecorder:
    """The host's side: one region a slot."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.fd = shared_file("pulvinar-flight", slots * _SLOT_BYTES)
        self._memory = mmap.mmap(self.fd, slots * _SLOT_BYTES)

    def board(self, slot: int, ids: Sequence[int]) -> None:
        """Note what a slot is about to run; of a batch beyond `IDS_PER_SLOT` requests, the first ones."""
        if slot < self.slots:
            ids = ids[:IDS_PER_SLOT]
            struct.pack_into(f"<{len(ids) + 1}Q", self._memory, slot * _SLOT_BYTES, len(ids), *ids)

    def land(self, slot: int) -> None:
        """The slot has finished its batch."""
        if slot < self.slots:
            struct.pack_into("<Q", self._memory, slot * _SLOT_BYTES, 0)


class FlightRecord:
    """The sender's side. Takes the descriptor over."""

    def __init__(self, fd: int) -> None:
        self._memory = map_file(fd)

    def aboard(self) -> set[int]:
        """Ids of all requests that were running."""
        ids: set[int] = set()
        for start in range(0, len(self._memory), _SLOT_BYTES):
            (count,) = struct.unpack_from("<Q", self._memory, start)
            ids.update(struct.unpack_from(f"<{min(count, IDS_PER_SLOT)}Q", self._memory, start + 8))
        return ids
