"""What waits, or measures how long, does so by a clock that nobody sets: a jump of the time of day is harmless.

Where requests wait and models run, nobody asks for the time of day. Elsewhere it is what is asked for: expiry,
rows, logs, windows of rates (see test_clock_jumps), and claims of jobs, which machines must be able to compare.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIME_OF_DAY = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "utc_now"}
WHERE_THINGS_WAIT = (
    "core/serving",
    "core/pipelines",
    "core/engines",
    "core/media",
    "core/tasks",
    "core/optimiser",
    "core/validation",
    "app/protocol.py",
    "app/websocket.py",
    "app/supervisor.py",
    "app/server.py",
)


def _reads(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in TIME_OF_DAY:
            yield node.lineno


def test_nobody_waits_by_the_time_of_day() -> None:
    paths = [path for place in WHERE_THINGS_WAIT for path in [ROOT / place, *(ROOT / place).rglob("*.py")]]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths if path.is_file() for line in _reads(path)]
    assert len(paths) > 80
    assert not found, "use time.monotonic() or the event loop's time: " + ", ".join(found)
