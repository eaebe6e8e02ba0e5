from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from core.errors import StorageFull

T = TypeVar("T")

# EFBIG: the file system or a limit of the process caps the size of one file.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SENTENCE: Final = "The server's disk has no room for this upload; free some space or ask its operator to."


class Stopped(Exception):
    """Work in a thread that gave up because nobody waits for it any more."""


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the system's ways of saying "no room" into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(_SENTENCE) from error
        raise


def require_room(directory: Path, size_bytes: int, min_free_bytes: int) -> None:
    """Raise StorageFull unless `size_bytes` fit and leave `min_free_bytes` free."""
    state = os.statvfs(directory)
    if state.f_bavail * state.f_frsize - size_bytes < min_free_bytes:
        raise StorageFull(_SENTENCE)


def sync_path(path: Path) -> None:
    """Have a file's data, or a directory's entries, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work(stop)` in a thread; when the caller is cancelled, set `stop` and wait until the work has ended."""
    stop = threading.Event()
    future = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen, so that it is not logged as lost
        raise
