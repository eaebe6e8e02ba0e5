"""What one stream has done so far."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

RECENT: Final = 1024
"""The latencies of so many frames are kept for the percentiles."""


class StreamStatistics:
    """Counts of frames, and the latencies of the last ones, from a frame's arrival to its answer's sending."""

    def __init__(self) -> None:
        self.received = self.answered = self.failed = self.dropped = 0
        self.received_bytes = 0
        self._began = time.monotonic()
        self._recent_ms: deque[float] = deque(maxlen=RECENT)

    def came(self, size_bytes: int) -> int:
        """Count a frame that came; answers its number, from 1 on."""
        self.received += 1
        self.received_bytes += size_bytes
        return self.received

    def sent(self, latency_ms: float, *, failed: bool) -> None:
        """Count a frame whose answer was sent."""
        if failed:
            self.failed += 1
        else:
            self.answered += 1
        self._recent_ms.append(latency_ms)

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        seconds = time.monotonic() - self._began
        recent = sorted(self._recent_ms)
        return {
            "frames": {
                "received": self.received,
                "answered": self.answered,
                "failed": self.failed,
                "dropped": self.dropped,
            },
            "received_bytes": self.received_bytes,
            "seconds": round(seconds, 3),
            "frames_per_second": round((self.answered + self.failed) / seconds, 2) if seconds > 0 else 0.0,
            "latency_ms": {f"p{p}": _percentile(recent, p) for p in (50, 95, 99)},
        }


def _percentile(ordered: list[float], percent: int) -> float | None:
    """The nearest rank."""
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 3)
