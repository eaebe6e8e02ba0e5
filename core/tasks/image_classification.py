"""`image-classification`: an image in, the likeliest classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.class_scores import ClassScores, PostprocessConfig
from core.tasks.config import TaskConfig, parse
from core.tasks.image_input import ImageInput, PreprocessConfig
from core.tasks.labels import read_labels


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
        self._scores = ClassScores(checked.postprocess, read_labels(checked.labels, root), signature)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        self._scores.wanted(parameters)  # wrong ones are refused before the work
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image. A score that is not a number sorts last and is null."""
        return [{"predictions": best} for best in self._scores.best(outputs, parameters)]
