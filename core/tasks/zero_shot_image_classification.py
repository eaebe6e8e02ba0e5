"""`zero-shot-image-classification`: an image and labels in any words in, how well each fits out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage
from core.signature import Signature
from core.tasks import image_embedding
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.class_scores import Activation, activate
from core.tasks.config import TaskConfig, parse
from core.tasks.image_embedding import ImageVectors
from core.tasks.image_input import ImageInput, PreprocessConfig
from core.tasks.labels import read_labels
from core.tasks.parameters import whole_number
from core.tasks.text_input import TextConfig
from core.tasks.text_tower import TextTower, inside
from core.tasks.vectors import Vectors, checked, normalized

MAX_LABELS: Final = 200
"""That a call may ask for."""
_MAX_CHARACTERS: Final = 500
_EXAMPLE: Final = "thing"
_MAX_FILE_BYTES: Final = 256 << 20


class TextSideConfig(TextConfig):
    """Where the labels' vectors come from: the text `model` of the package, or its file of `embeddings`."""

    model: str | None = None
    output: str | None = None
    embeddings: str | None = None
    template: str = Field("a photo of a {}", min_length=2, max_length=500)


class PostprocessConfig(image_embedding.PostprocessConfig):
    """From both vectors to scores: `activation(scale * cosine + bias)`."""

    text: TextSideConfig = TextSideConfig()
    scale: float = Field(100.0, gt=0, le=1e6, allow_inf_nan=False)
    bias: float = Field(0.0, allow_inf_nan=False)
    activation: Activation = "softmax"
    top_k: int = Field(5, ge=1, le=10_000)


class ZeroShotConfig(TaskConfig):
    """The manifest's section; `labels` are what is asked for where a call names none."""

    preprocess: PreprocessConfig = PreprocessConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


class ZeroShotImageClassification(Task):
    """Answers `{"predictions": [{label, index, score}]}` for each image, best first.

    `parameters.labels` are the labels to choose among, `template` the sentence around them, `top_k` how many are
    answered. Two towers, as CLIP's (arXiv 2103.00020, figure 3): the model is the image's, the text's is beside.
    """

    name: ClassVar[str] = "zero-shot-image-classification"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        _check_sides(parse(ZeroShotConfig, config))

    @classmethod
    def other_models(cls, config: Mapping[str, Any]) -> list[str]:
        """The text model."""
        model = parse(ZeroShotConfig, config).postprocess.text.model
        return [] if model is None else [model]

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        section = parse(ZeroShotConfig, config)
        _check_sides(section)
        self._how = section.postprocess
        self._input = ImageInput(section.preprocess, signature, limits.max_pixels)
        self._images = ImageVectors(self._how.model_copy(update={"normalize": True}), signature)
        self._labels = read_labels(section.labels, root)
        self._template = self._how.text.template
        self._tower = self._make_tower(root, limits)
        self._own = self._own_vectors(root)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        labels, vectors = self._asked(parameters)  # what is wrong is refused before the work
        self._wanted(parameters, len(labels))
        prepared = self._input.prepare(payloads)
        return Prepared(prepared.inputs, [(labels, vectors)] * len(payloads))

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image."""
        images = self._images.of(outputs)
        return [
            self._answer(image, labels, vectors, parameters)
            for image, (labels, vectors) in zip(images, contexts, strict=True)
        ]

    def example_parameters(self) -> dict[str, Any]:
        """A label, where the model has none of its own."""
        return {} if self._own is not None else {"labels": [_EXAMPLE]}

    def check_outputs(self, outputs: Tensors) -> None:
        """Raises InvalidPackage where the towers' vectors are of different size."""
        size, labels = self._images.of(outputs).shape[1], self._own
        if labels is None:
            assert self._tower is not None
            labels = self._tower.vectors([self._template.replace("{}", _EXAMPLE)])
        if labels.shape[1] != size:
            raise InvalidPackage(f"The images' vectors have {size} values, and the labels' {labels.shape[1]}.")

    def _answer(
        self, image: Vectors, labels: list[str], vectors: Vectors, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        scores = activate((vectors @ image * self._how.scale + self._how.bias)[None], self._how.activation)[0]
        order = np.argsort(-scores, kind="stable")[: self._wanted(parameters, len(labels))]
        return {
            "predictions": [
                {"label": labels[index], "index": index, "score": score}
                for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
            ]
        }

    def _wanted(self, parameters: Mapping[str, Any], labels: int) -> int:
        return whole_number(parameters, "top_k", min(self._how.top_k, labels), labels)

    def _asked(self, parameters: Mapping[str, Any]) -> tuple[list[str], Vectors]:
        """The labels to choose among, and their vectors [labels, size]."""
        asked, template = parameters.get("labels"), self._asked_template(parameters)
        if asked is None and template == self._template:
            if self._own is None or self._labels is None:
                raise InvalidInput("The model has no labels of its own: name some in the parameter labels.")
            return self._labels, self._own
        labels = self._labels if asked is None else _checked_labels(asked)
        if labels is None:
            raise InvalidInput("The model has no labels of its own: name some in the parameter labels.")
        if self._tower is None:
            raise InvalidInput("This model knows its own labels only: it has their vectors and no text model.")
        return labels, self._tower.vectors([template.replace("{}", label) for label in labels])

    def _asked_template(self, parameters: Mapping[str, Any]) -> str:
        template = parameters.get("template", self._template)
        if not isinstance(template, str) or "{}" not in template or len(template) > _MAX_CHARACTERS:
            raise InvalidInput("The parameter template must be a text with {} where the label goes.")
        return template

    def _make_tower(self, root: Path, limits: MediaLimits) -> TextTower | None:
        side = self._how.text
        if side.model is None:
            return None
        return TextTower(root, side.model, side.output, side, limits.max_text_bytes)

    def _own_vectors(self, root: Path) -> Vectors | None:
        """Those of the manifest's labels, made now so that no call waits for them."""
        if self._labels is None:
            return None
        if self._tower is not None:
            return self._tower.vectors([self._template.replace("{}", label) for label in self._labels])
        assert self._how.text.embeddings is not None
        return read_vectors(inside(root, self._how.text.embeddings), len(self._labels))


def _check_sides(config: ZeroShotConfig) -> None:
    side = config.postprocess.text
    if (side.model is None) == (side.embeddings is None):
        raise InvalidPackage("The manifest's field postprocess.text needs either model or embeddings.")
    if side.embeddings is not None and config.labels is None:
        raise InvalidPackage("The manifest's field labels is needed: it says whose vectors the embeddings are.")
    if "{}" not in side.template:
        raise InvalidPackage("The manifest's field postprocess.text.template needs {} where the label goes.")


def _checked_labels(asked: object) -> list[str]:
    if not isinstance(asked, list) or not 1 <= len(asked) <= MAX_LABELS:
        raise InvalidInput(f"The parameter labels must be a list of 1 to {MAX_LABELS} texts.")
    for label in asked:
        if not isinstance(label, str) or not label.strip() or len(label) > _MAX_CHARACTERS:
            raise InvalidInput(f"Each of the labels must be a text of 1 to {_MAX_CHARACTERS} characters.")
    return asked


def read_vectors(path: Path, count: int) -> Vectors:
    """So many vectors, of length 1 each: a JSON list of lists, or float32 values, little-endian, row by row.

    Raises InvalidPackage where there are others.
    """
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise InvalidPackage(f"The file of embeddings is larger than {_MAX_FILE_BYTES >> 20} MiB.")
    try:
        if path.suffix == ".json":
            values = np.array(json.loads(path.read_bytes()), np.float32)
        else:
            values = np.fromfile(path, "<f4").astype(np.float32).reshape(count, -1)
        if values.ndim != 2 or len(values) != count or not values.shape[1]:
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidPackage(
            f"The file of embeddings does not hold a vector for each of {count} labels."
        ) from error
    if not np.isfinite(values).all():
        raise InvalidPackage("The file of embeddings holds NaN or infinity.")
    return normalized(checked(values))
