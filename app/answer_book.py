"""Answers that were given and are not counted yet.

To count one is a few microseconds when it is done between two requests, and a tenth of one when it is done for
hundreds at once; so an answer's numbers are only put down, and `app.tallies` counts them before anybody reads.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.serving.request import InferenceResult
from core.serving.target import Target

MOST: Final = 256
"""Answers of one target that wait to be counted, at most; to count so many takes a fifth of a millisecond."""
_NUMBERS: Final = 8


class AnswerBook:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._rows: dict[Target, list[float]] = {}

    def put_down(self, target: Target, result: InferenceResult) -> bool:
        """Keep an answer's numbers; whether it is time to count them."""
        rows = self._rows.get(target)
        if rows is None:
            rows = self._rows[target] = []
        timing = result.timing
        rows += (
            time.time(),
            result.items,
            timing.queue,
            timing.batch_wait,
            timing.preprocess,
            timing.infer,
            timing.postprocess,
            timing.total,
        )
        return len(rows) >= MOST * _NUMBERS

    def take(self) -> list[tuple[Target, NDArray[np.float64]]]:
        """What was put down since the last call, in order: for each answer the time it was given (seconds of the
        epoch), its items, and its times in milliseconds in the order of `core.metrics.VersionCounts.answered`;
        (answers, 8).
        """
        if not self._rows:
            return []
        taken, self._rows = self._rows, {}
        return [(target, np.array(rows).reshape(-1, _NUMBERS)) for target, rows in taken.items()]
