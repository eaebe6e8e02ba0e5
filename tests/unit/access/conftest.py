from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from core.access.counters import SLOT_BYTES, SharedWindows, Table
from core.access.own_windows import OwnWindows
from core.access.slots import SharedMemory, new_memory_file


@pytest.fixture(params=["own", "shared"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """Where limits are kept: by a process alone, and by workers together."""
    if request.param == "own":
        yield OwnWindows(1024)
        return
    memory = SharedMemory(1024 * SLOT_BYTES, new_memory_file(1024 * SLOT_BYTES))
    yield SharedWindows(memory, 0, 1024)
    os.close(memory.fd)
