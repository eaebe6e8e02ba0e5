"""How much memory this process has taken, and whether an error means that there was no more."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import Final

# Words of the libraries for an allocation that failed.
_OUT_OF_MEMORY: Final = re.compile(
    r"bad_alloc|bad allocation|allocate memory|out of memory|MemoryError", re.IGNORECASE
)


def peak_memory_bytes() -> int:
    """Most memory that this process has held at once.

    Not `ru_maxrss`: across fork and exec that keeps the peak of the server that started this process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or one that it came from, is an allocation that failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or _OUT_OF_MEMORY.search(str(cause)):
            return True
        cause = cause.__cause__
    return False
