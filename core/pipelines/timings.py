"""Where the time of one run went, and of the last runs, node by node."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.serving.request import Timing

KEPT_RUNS: Final = 200


@dataclass(slots=True)
class NodeTiming:
    """One node of the definition, over all its calls. Milliseconds; `start` and `end` since the run began.

    `queue`, `preprocess`, `infer` and `postprocess` are sums over the calls, which run beside each other.
    """

    calls: int = 0
    start: float = 0.0
    end: float = 0.0
    spent: Timing = field(default_factory=Timing)

    def to_json(self) -> dict[str, float]:
        """As it is answered."""
        said = {"calls": self.calls, "start": round(self.start, 3), "end": round(self.end, 3)}
        parts = self.spent.to_json()
        parts.pop("total")
        return {**said, **(parts if self.spent.total else {})}


class Timings:
    """The timings of one run, by the node's dotted name: `objects.class` is a node in the body of `objects`."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._nodes: dict[str, NodeTiming] = {}

    def note(self, name: str, started: float, timing: Timing | None = None) -> None:
        """A call of a node, begun at `started` (`time.monotonic()`), has ended now."""
        start, end = (started - self._began) * 1000, (time.monotonic() - self._began) * 1000
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = NodeTiming(start=start)
        node.calls += 1
        node.start, node.end = min(node.start, start), max(node.end, end)
        if timing is not None:
            for part in ("queue", "batch_wait", "preprocess", "infer", "postprocess", "total", "engine", "tokens"):
                setattr(node.spent, part, getattr(node.spent, part) + getattr(timing, part))

    def add_up(self, timing: Timing) -> None:
        """Add what all nodes took of engines, and the tokens of their texts."""
        for node in self._nodes.values():
            timing.engine += node.spent.engine
            timing.tokens += node.spent.tokens

    def nodes(self) -> Mapping[str, NodeTiming]:
        """Every node that ran, by its dotted name."""
        return self._nodes

    def to_json(self) -> dict[str, dict[str, float]]:
        """Every node that ran, in the order in which they began."""
        began_first = sorted(self._nodes.items(), key=lambda one: one[1].start)
        return {name: node.to_json() for name, node in began_first}


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """How long a node took in the last runs that had it, in milliseconds; `waiting_ms` of it in queues."""

    name: str
    runs: int
    calls: float
    """In a run, on average."""
    mean_ms: float
    p95_ms: float
    waiting_ms: float
    start_ms: float
    """When it began, on average since its run did."""


class NodeTimes:
    """The times of the nodes of a pipeline over its last runs in this process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._runs: deque[Mapping[str, NodeTiming]] = deque(maxlen=KEPT_RUNS)

    def add(self, timings: Timings) -> None:
        """A run has ended well."""
        self._runs.append(timings.nodes())

    def summaries(self) -> list[NodeSummary]:
        """Every node that ran, in the order in which they begin."""
        seen: dict[str, list[NodeTiming]] = {}
        for run in self._runs:
            for name, timing in run.items():
                seen.setdefault(name, []).append(timing)
        return sorted((_summary(name, some) for name, some in seen.items()), key=lambda one: one.start_ms)


def _summary(name: str, timings: Sequence[NodeTiming]) -> NodeSummary:
    count = len(timings)
    lengths = sorted(one.end - one.start for one in timings)
    return NodeSummary(
        name,
        count,
        sum(one.calls for one in timings) / count,
        sum(lengths) / count,
        lengths[min(count - 1, int(0.95 * count))],
        sum(one.spent.queue for one in timings) / count,
        sum(one.start for one in timings) / count,
    )
