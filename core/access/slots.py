"""Memory that the processes of one machine share: slots found by key, and locks that die with their holder.

The control process makes it, nameless, and its workers inherit it. It has stripes; a key belongs to one of them,
and whoever reads in order to write locks that. The locks are POSIX record locks: the kernel frees those of a
process that ends, however it ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from core.access.windows import KEY_BYTES
from core.errors import LimitsUnavailable

STRIPES = 64
LOCK_PATIENCE_S = 0.1
"""A holder needs microseconds; one that was stopped in the middle must not stop all others."""


class SharedMemory:
    """The first `size` bytes of the file in memory that processes share."""

    def __init__(self, size: int, fd: int) -> None:
        self.fd = fd
        self.map = mmap.mmap(fd, size)

    def lock(self, number: int) -> None:
        """Take one lock. Raises LimitsUnavailable after `LOCK_PATIENCE_S`."""
        deadline = 0.0
        while True:
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                return
            except (BlockingIOError, PermissionError):
                now = time.monotonic()
                deadline = deadline or now + LOCK_PATIENCE_S
                if now >= deadline:
                    raise LimitsUnavailable("The limits cannot be counted now.", retry_after_s=1) from None
                time.sleep(0.00002)  # lets the holder go on where both are on one core

    def unlock(self, number: int) -> None:
        """Give one lock back."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, number)

    def close(self) -> None:
        """Let go of it. Views of it may be left, then it goes with them."""
        with suppress(BufferError):
            self.map.close()
        os.close(self.fd)


def new_memory_file(size: int) -> int:
    """The descriptor of a new file in memory, without a name, gone with its last user."""
    fd = os.memfd_create("pulvinar-limits", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


class SlotTable:
    """Slots of one size that begin with their key. The caller locks; offsets are in bytes of the memory."""

    def __init__(self, memory: SharedMemory, offset: int, slots: int, slot_bytes: int) -> None:
        self.memory = memory.map
        self._offset = offset
        self._slot_bytes = slot_bytes
        self._per_stripe = slots // STRIPES
        self._hints: dict[bytes, int] = {}
        self.slots = slots

    def stripe_slots(self, stripe: int) -> tuple[int, int]:
        """The first slot of a stripe, and how many it has."""
        return stripe % STRIPES * self._per_stripe, self._per_stripe

    def find(self, stripe: int, key: bytes) -> int | None:
        """Where the slot of `key` is; None where it has none."""
        at = self._hints.get(key)
        if at is not None and self.memory[at : at + KEY_BYTES] == key:
            return at
        first, count = self.stripe_slots(stripe)
        start = self._offset + first * self._slot_bytes
        end = start + count * self._slot_bytes
        at = self.memory.find(key, start, end)
        while at >= 0:
            if (at - self._offset) % self._slot_bytes == 0:
                self._hint(key, at)
                return at
            at = self.memory.find(key, at + 1, end)
        return None

    def claim(self, stripe: int, free: NDArray[np.bool_], key: bytes) -> int:
        """Give `key` a slot among those of its stripe that are `free`. Raises LimitsUnavailable if none is."""
        first, _ = self.stripe_slots(stripe)
        number = int(np.argmax(free))
        if not free[number]:
            raise LimitsUnavailable("The server counts as many limits as it can.", retry_after_s=1)
        at = self._offset + (first + number) * self._slot_bytes
        self.memory[at : at + self._slot_bytes] = key + bytes(self._slot_bytes - KEY_BYTES)
        self._hint(key, at)
        return at

    def _hint(self, key: bytes, at: int) -> None:
        if len(self._hints) >= self.slots:
            self._hints.clear()
        self._hints[key] = at
