"""What went into each node of a run and what came out, for somebody who looks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MOST_CALLS: Final = 64
"""Of one run; a map over many items has more. Values are kept as they are: each may hold a picture."""


@dataclass(frozen=True, slots=True)
class NodeCall:
    """One call of a node: `name` with the item of a map it was for, as `each[2].classify`.

    Inputs by port, outputs by port; milliseconds since the run began.
    """

    name: str
    what: str
    """The model's name, or the operation's."""
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    start_ms: float
    end_ms: float


class Trace:
    """The first calls of a run, in the order in which they ended."""

    def __init__(self) -> None:
        self.calls: list[NodeCall] = []
        self.left_out = 0
        """How many calls there were beyond MOST_CALLS."""
        self._began = time.monotonic()

    def note(
        self, name: str, what: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], started: float
    ) -> None:
        """A call that began at `started` (`time.monotonic()`) has ended now."""
        if len(self.calls) >= MOST_CALLS:
            self.left_out += 1
            return
        now = time.monotonic()
        start_ms, end_ms = (started - self._began) * 1000, (now - self._began) * 1000
        self.calls.append(NodeCall(name, what, dict(inputs), dict(outputs), start_ms, end_ms))
