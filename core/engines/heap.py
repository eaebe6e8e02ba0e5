"""What an engine has taken of this process's memory, and what it gives back.

Source of the numbers: malloc.h and mallopt(3) of glibc, the only C library that has and needs them. Every host
loads this at its start, which is why it does without psutil.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_WHILE_LOADING_BYTES: Final = 1 << 20
"""From this size on a block is a mapping of its own while a model loads: it goes back the moment it is freed."""
_ELSE_BYTES: Final = 32 << 20
"""Otherwise: where glibc itself arrives once a block of that size was freed. Pictures and batches come and go
within the heap, whose pages are there already."""


def trim_heap() -> None:
    """Let the C library hand free pages back. Blocks for some milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def use_one_arena() -> None:
    """Let all threads of this process take their memory from one heap; to be called before there are others.

    Otherwise nearly every thread gets one of its own, and loads that come now to this thread, now to that, leave
    free memory at the end of each, where `trim_heap` does not reach. What the environment says goes first.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


class _Loads:
    """How many loads are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, number: int) -> None:
        """One more, or one less; the first and the last change how blocks are made."""
        with self._lock:
            before, self._count = self._count, self._count + number
            if not before or not self._count:
                _map_blocks_from(_WHILE_LOADING_BYTES if self._count else _ELSE_BYTES)


_loads = _Loads()


@contextmanager
def passing_blocks() -> Iterator[None]:
    """Around the load of a model: what it reads, parses and packs anew is not kept by the heap once it is freed.

    The heap keeps it in every thread's part of it, and what lies between two weights for longer: without this,
    loads side by side took nearly twice as much at their worst moment.
    """
    _loads.add(1)
    try:
        yield
    finally:
        _loads.add(-1)


def _map_blocks_from(size_bytes: int) -> None:
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, size_bytes)
        library.mallopt(_TRIM_THRESHOLD, 2 * size_bytes)  # as glibc couples them


class Growth:
    """How much the process has grown since this was made: beside others that load or run, an estimate."""

    def __init__(self) -> None:
        self._before_bytes = _resident_bytes()

    def bytes(self, least_bytes: int) -> int:
        """So far, and `least_bytes` where that is more."""
        return max(least_bytes, _resident_bytes() - self._before_bytes)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])  # proc(5): size, resident, …
    return pages * os.sysconf("SC_PAGE_SIZE")
