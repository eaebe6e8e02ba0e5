"""Pulvinar as it is after a quarter of an hour in which every model was asked something.

What charts show of that is in memory, and would take as long to come about.

The numbers of models and of requests a step are in the variable BENCH_STEPS, as `500,20`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Awaitable, Callable

from app.readings import Reading, Step, Tally
from app.recorder import EVERY_S, KEPT_STEPS, Recorder
from core.database.session import Database
from core.metrics import STAGE_BOUNDS_MS


def steps() -> deque[Step]:
    """As many as are kept."""
    models, requests = map(int, os.environ["BENCH_STEPS"].split(","))
    now, buckets = time.time(), [0] * (len(STAGE_BOUNDS_MS) + 1)
    buckets[3], buckets[4] = requests - 2, 2
    names = [f"model-{number:05d}" for number in range(models)]
    tallies = {
        name: Tally(requests + place % 7, int(place % 50 == 0), buckets) for place, name in enumerate(names)
    }
    made = [Step(now - EVERY_S * back, EVERY_S, tallies, 3, 40.0, 8 << 30) for back in range(KEPT_STEPS, 0, -1)]
    return deque(made, maxlen=KEPT_STEPS)


class Remembering(Recorder):
    """One that has run for a while."""

    def __init__(self, database: Database, read: Callable[[], Awaitable[Reading]]) -> None:
        super().__init__(database, read)
        self.steps = steps()


if __name__ == "__main__":
    import app.observation

    app.observation.Recorder = Remembering  # type: ignore[misc]
    from run import main

    main()
