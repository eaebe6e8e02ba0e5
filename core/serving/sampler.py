"""Takes some of a model's live inputs aside, so that each has had the same chance to be among those kept."""

from __future__ import annotations

import random
from collections.abc import Callable

from core.serving.request import InferenceRequest


class Sampler:
    """Hands some requests to `put`: a part `rate` of them, and ever fewer once `max_count` have been handed on.

    Who keeps them replaces one by chance, so that together they are a reservoir (Vitter, "Random Sampling with a
    Reservoir", 1985, algorithm R). `seen` is how many there have been before. Costs a random number a request.
    """

    def __init__(
        self, rate: float, max_count: int, put: Callable[[InferenceRequest], None], *, seen: int = 0
    ) -> None:
        self.rate = rate
        self.max_count = max_count
        self._put = put
        self._seen = seen

    def take(self, request: InferenceRequest) -> None:
        """Look at a request that was answered; never raises, never waits."""
        if random.random() >= self.rate:  # noqa: S311  # nosec B311
            return
        self._seen += 1
        if self._seen <= self.max_count or random.random() * self._seen < self.max_count:  # noqa: S311  # nosec B311
            self._put(request)
