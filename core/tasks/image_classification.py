"""`image-classification`: an image in, the likeliest classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage, RunFailed
from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.image_input import ImageInput, PreprocessConfig
from core.tasks.labels import read_labels

Scores = np.ndarray[Any, np.dtype[np.float32]]


class PostprocessConfig(TaskConfig):
    """From the model's first output to scores, and how many of them are answered."""

    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    top_k: int = Field(5, ge=1)


class ClassificationConfig(TaskConfig):
    """The manifest's section; `labels` is a list, or the name of a file in the package, one label a line."""

    preprocess: PreprocessConfig = PreprocessConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


class ImageClassification(Task):
    """Answers `{"predictions": [{label, index, score}]}` for each image, best first.

    `parameters.top_k` overrides how many.
    """

    name: ClassVar[str] = "image-classification"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(ClassificationConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(ClassificationConfig, config)
        self._input = ImageInput(checked.preprocess, signature, limits.max_pixels)
        self._labels = read_labels(checked.labels, root)
        self._classes = _count_classes(signature, self._labels)
        self._output = signature.outputs[0].name
        self._activation = checked.postprocess.activation
        self._top_k = checked.postprocess.top_k

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        self._wanted(parameters, self._classes)  # wrong ones are refused before the work
        return Prepared(self._input.prepare(payloads), [None] * len(payloads))

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image. A score that is not a number sorts last and is null."""
        scores = self._scores(outputs[self._output])
        count = self._wanted(parameters, scores.shape[1])
        return [{"predictions": self._best(row, count)} for row in scores]

    def _scores(self, output: np.ndarray[Any, Any]) -> Scores:
        values = output.reshape(len(output), -1).astype(np.float32, copy=False)
        if self._labels is not None and values.shape[1] != len(self._labels):
            raise RunFailed(f"The model answered {values.shape[1]} scores for {len(self._labels)} labels.")
        return _activate(values, self._activation)

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


def _count_classes(signature: Signature, labels: list[str] | None) -> int | None:
    """The number of classes, as far as it is known. Raises InvalidPackage where the labels are of another."""
    spec = signature.outputs[0]
    inner = spec.shape[1:]
    if not inner or spec.dtype in ("BYTES", "BOOL"):
        raise InvalidPackage(
            f"The output {spec.name} ({spec.dtype}, {list(spec.shape)}) cannot hold class scores."
        )
    classes = None if -1 in inner else int(np.prod(inner))
    if labels is None or classes in (None, len(labels)):
        return classes if labels is None else len(labels)
    raise InvalidPackage(f"There are {len(labels)} labels, but the output {spec.name} has {classes} classes.")


def _activate(values: Scores, activation: str) -> Scores:
    if activation == "none":
        return values
    with np.errstate(all="ignore"):  # NaN and infinities pass through and are answered as null
        if activation == "sigmoid":
            sigmoids: Scores = np.float32(1) / (np.float32(1) + np.exp(-values))
            return sigmoids
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        scores: Scores = powers / powers.sum(axis=1, keepdims=True)
        return scores
