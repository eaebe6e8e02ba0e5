"""When calls of an open loop are due: whatever the answers, as independent callers would send them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np


def poisson_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds after the start at which calls are due: `rate` a second on average, the gaps exponential.

    The same numbers for the same seed, so that every layer is sent the same load.
    """
    random = np.random.default_rng(seed)
    due: list[float] = []
    last = 0.0
    while last < seconds:
        gaps = random.exponential(1 / rate, max(16, int(rate * seconds)))
        times = last + np.cumsum(gaps)
        due += times[times < seconds].tolist()
        last = float(times[-1])
    return due


class Metronome:
    """Tells an event loop, from a thread of its own, that calls are due.

    An event loop's own timers come up to a millisecond late, which is longer than a small model takes.
    """

    def __init__(self, arrivals: Sequence[float], began: float, tell: Callable[[float], None]) -> None:
        self._due = [began + arrival for arrival in arrivals]
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench metronome", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell of no more calls."""
        self._stop.set()

    def join(self) -> None:
        """Wait until all have been told. Blocks."""
        self._thread.join()

    def _run(self) -> None:
        for due in self._due:
            left = due - time.perf_counter()
            if self._stop.wait(left) if left > 0 else self._stop.is_set():
                return
            try:
                self._loop.call_soon_threadsafe(self._tell, due)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
