"""BentoML with its adaptive batching on for the tiny model, one worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import ContentType
from work import Classifier, Tiny

OPTIONS: dict[str, Any] = {
    "workers": 1,
    "traffic": {"timeout": 60},
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}


@bentoml.service(**OPTIONS)
class TinyService:
    """64 floats -> MatMul -> 10 floats."""

    def __init__(self) -> None:
        self.model = Tiny()

    @bentoml.api(route="/tiny", batchable=True, max_batch_size=16, max_latency_ms=1000)
    def tiny(self, inputs: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        """[b, 64] -> [b, 10]."""
        return self.model.run(np.asarray(inputs, dtype=np.float32))


@bentoml.service(**OPTIONS)
class ClassifyService:
    """JPEG bytes -> top five."""

    def __init__(self) -> None:
        self.model = Classifier()

    @bentoml.api(route="/classify")
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> dict[str, Any]:
        """A file -> top five."""
        return self.model.answer(image.read_bytes())


service = TinyService if os.environ.get("BENCH_WORK") == "tiny" else ClassifyService
