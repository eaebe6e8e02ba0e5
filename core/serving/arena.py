"""Shared memory for arrays on their way to another process: written once, read in place.

Each side of a connection owns one arena, an anonymous file whose descriptor the other side is handed, and is the
only one to write or to divide it. A block stays taken until its owner hears that the other side is done with it.
"""

from __future__ import annotations

import bisect
import fcntl
import mmap
import os
from typing import Any

import numpy as np

_ALIGN = 64
KEEP_BYTES = 64 << 20
"""Pages beyond these are given back to the system whenever nothing is in the arena."""

Block = tuple[int, int]
"""Offset and size, in bytes."""


class Arena:
    """The owner's side: first fit over a list of free blocks, sorted by offset. Belongs to one thread."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.fd = shared_file("pulvinar-arena", size_bytes)
        self._memory = mmap.mmap(self.fd, size_bytes)
        self._view = np.frombuffer(self._memory, np.uint8)
        self._free: list[Block] = [(0, size_bytes)]
        self._touched = 0

    def put(self, array: np.ndarray[Any, Any]) -> Block | None:
        """Copy an array in, in C order; its block, or None when there is no room."""
        block = self._take(-(-max(1, array.nbytes) // _ALIGN) * _ALIGN)
        if block is not None:
            target = self._view[block[0] : block[0] + array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(target, array)
        return block

    def free(self, block: Block) -> None:
        """Give a block back; neighbours grow together."""
        index = bisect.bisect(self._free, block)
        start, size = block
        if index < len(self._free) and start + size == self._free[index][0]:
            size += self._free.pop(index)[1]
        if index > 0 and sum(self._free[index - 1]) == start:
            index -= 1
            before = self._free.pop(index)
            start, size = before[0], before[1] + size
        self._free.insert(index, (start, size))
        if size == self.size_bytes and self._touched > KEEP_BYTES:
            self._trim()

    @property
    def free_bytes(self) -> int:
        """Room left, all blocks together."""
        return sum(size for _, size in self._free)

    def close(self) -> None:
        """Let go of the descriptor and the memory; what the other side has mapped stays readable there."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self._free = []
        self._view = np.empty(0, np.uint8)
        self._memory.close()

    def _take(self, size: int) -> Block | None:
        for index, (start, length) in enumerate(self._free):
            if length < size:
                continue
            if length == size:
                del self._free[index]
            else:
                self._free[index] = (start + size, length - size)
            self._touched = max(self._touched, start + size)
            return start, size
        return None

    def _trim(self) -> None:
        self._memory.madvise(mmap.MADV_REMOVE, KEEP_BYTES, self.size_bytes - KEEP_BYTES)
        self._touched = KEEP_BYTES


class ArenaView:
    """The other side: reads what the owner wrote, in place. Takes the descriptor over."""

    def __init__(self, fd: int) -> None:
        self._memory = map_file(fd)
        self._size = len(self._memory)

    def array(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A read-only view of an array. Raises ValueError for one that does not lie inside."""
        count = int(np.prod(shape, dtype=np.int64))
        inside = min(shape, default=0) >= 0 <= offset and offset + count * dtype.itemsize <= self._size
        if not inside:
            raise ValueError("the array does not lie in the arena")
        return np.frombuffer(self._memory, dtype, count, offset).reshape(shape)


def shared_file(name: str, size_bytes: int) -> int:
    """The descriptor of an anonymous file whose size nobody can change any more: no reader meets its end."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def map_file(fd: int) -> mmap.mmap:
    """Map a whole file for reading and close its descriptor. Raises OSError or ValueError."""
    try:
        return mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
