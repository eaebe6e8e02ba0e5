"""From a model's class scores to the likeliest classes with their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks.config import TaskConfig

Scores = np.ndarray[Any, np.dtype[np.float32]]
Activation = Literal["softmax", "sigmoid", "none"]


class PostprocessConfig(TaskConfig):
    """From the model's first output to scores, and how many of them are answered."""

    activation: Activation = "softmax"
    top_k: int = Field(5, ge=1)


class ClassScores:
    """Bound to a model's first output; raises InvalidPackage where that or the labels do not fit."""

    def __init__(self, config: PostprocessConfig, labels: list[str] | None, signature: Signature) -> None:
        self._labels = labels
        self._spec = signature.outputs[0]
        self._classes = _count_classes(self._spec, labels)
        self._activation = config.activation
        self._top_k = config.top_k

    def wanted(self, parameters: Mapping[str, Any]) -> int | None:
        """How many the caller wants, None where only the outputs will tell. Raises InvalidInput."""
        return self._wanted(parameters, self._classes)

    def best(self, outputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """For each item `[{label, index, score}]`, best first. A score that is no number is null and last."""
        output = outputs[self._spec.name]
        values = output.reshape(len(output), -1).astype(np.float32, copy=False)
        if self._labels is not None and values.shape[1] != len(self._labels):
            raise RunFailed(f"The model answered {values.shape[1]} scores for {len(self._labels)} labels.")
        scores = activate(values, self._activation)
        count = self._wanted(parameters, scores.shape[1])
        return [self._best(row, count) for row in scores]

    def _wanted(self, parameters: Mapping[str, Any], classes: int | None) -> int:
        asked = parameters.get("top_k")
        if asked is None:
            return min(self._top_k, classes or self._top_k)
        count = int(asked) if isinstance(asked, str) and asked.isascii() and asked.isdigit() else asked
        if type(count) is not int or count < 1 or (classes is not None and count > classes):
            most = f"1 to {classes}" if classes else "1 or more"
            raise InvalidInput(f"The parameter top_k must be a whole number, {most}.")
        return count

    def _best(self, scores: Scores, count: int) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable")[:count]  # NaN goes last
        return [
            {"label": self._label(index), "index": index, "score": score if np.isfinite(score) else None}
            for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
        ]

    def _label(self, index: int) -> str:
        return self._labels[index] if self._labels is not None else str(index)


def _count_classes(spec: TensorSpec, labels: list[str] | None) -> int | None:
    """The number of classes, as far as it is known. Raises InvalidPackage where the labels are of another."""
    inner = spec.shape[1:]
    if not inner or spec.dtype in ("BYTES", "BOOL"):
        raise InvalidPackage(
            f"The output {spec.name} ({spec.dtype}, {list(spec.shape)}) cannot hold class scores."
        )
    classes = None if -1 in inner else int(np.prod(inner))
    if labels is None or classes in (None, len(labels)):
        return classes if labels is None else len(labels)
    raise InvalidPackage(f"There are {len(labels)} labels, but the output {spec.name} has {classes} classes.")


def activate(values: Scores, activation: str) -> Scores:
    """Scores on the last axis: `softmax` sums to 1, `sigmoid` is each by itself, `none` leaves them."""
    if activation == "none":
        return values
    with np.errstate(all="ignore"):  # NaN and infinities pass through and are answered as null
        if activation == "sigmoid":
            sigmoids: Scores = np.float32(1) / (np.float32(1) + np.exp(-values))
            return sigmoids
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        scores: Scores = powers / powers.sum(axis=-1, keepdims=True)
        return scores
