"""What embedding tasks do with vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from core.errors import RunFailed

Vectors = np.ndarray[Any, np.dtype[np.float32]]
_SHORTEST: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Pooled:
    """How an item's vector is made of the output [items, …, size]: `mean` over `axes`, the first place (`cls`), or
    as it is (`none`). Places whose `mask`, an input [items, places], is 0 do not count; without a name all do.
    """

    output: str
    how: str = "none"
    axes: tuple[int, ...] = (1,)
    mask: str = ""

    def of(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> Vectors:
        """Float32 [items, size]."""
        values: Vectors = outputs[self.output].astype(np.float32, copy=False)
        if self.how == "cls":
            return values[:, 0]
        if self.how == "none":
            return values
        if not self.mask:
            return np.asarray(values.mean(axis=self.axes))
        counts = inputs[self.mask].astype(np.float32)[..., None]
        return np.asarray((values * counts).sum(axis=1) / np.maximum(counts.sum(axis=1), 1))


def checked(vectors: Vectors) -> Vectors:
    """The vectors [items, size]. Raises RunFailed where one holds what is no number."""
    if not np.isfinite(vectors).all():
        raise RunFailed("The model answered a vector that holds NaN or infinity.")
    return vectors


def normalized(vectors: Vectors) -> Vectors:
    """Divided by their Euclidean lengths, so that the dot product of two is their cosine; none by zero."""
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _SHORTEST)
    return unit
