"""The file that says which process serves a data directory, so that `reload` finds it.

Its server holds a lock on it: what a killed one leaves behind does not point at a stranger who has its number now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_NAME = "pulvinar.pid"


@contextlib.contextmanager
def pid_file(data_dir: Path) -> Iterator[None]:
    """Hold the file while serving; where another server on the same directory holds it, it stays theirs."""
    fd = os.open(data_dir / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _lock(fd):
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        else:
            log.warning(
                "server.not_alone", data_dir=str(data_dir), reason="another server runs on this data directory"
            )
        yield
    finally:
        os.close(fd)


def running_pid(data_dir: Path) -> int | None:
    """The process that serves this directory, if there is one."""
    try:
        with (data_dir / _NAME).open("rb") as file:
            return None if _lock(file.fileno()) else int(file.read())
    except (OSError, ValueError):
        return None


def _lock(fd: int) -> bool:
    """Take the lock; false where another process has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
