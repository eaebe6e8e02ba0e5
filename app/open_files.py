"""How many files, and so connections, this process may have open."""

from __future__ import annotations

import resource
from typing import Final

import structlog

log = structlog.get_logger(__name__)

OTHERS: Final = 512
"""What is open beside connections: the database, models, logs, hosts."""


def allow_connections(count: int) -> None:
    """Raise this process's own limit so that it can hold so many; says so where the system's is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHERS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        log.warning("connections.limited", max_connections=count, open_files=possible)
