"""`image-embedding`: an image in, one vector out that stands close to those of images that look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np

from core.errors import InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.image_input import ImageInput, PreprocessConfig
from core.tasks.vectors import Pooled, Vectors, checked, normalized

Pooling = Literal["none", "mean", "cls"]
_BY_AXES: Final[dict[int, Pooling]] = {2: "none", 3: "cls", 4: "mean"}
_USABLE: Final[dict[Pooling, tuple[int, ...]]] = {"none": (2,), "mean": (3, 4), "cls": (3,)}


class PostprocessConfig(TaskConfig):
    """From the model's output to one vector an image; `layout` is that of an output of four axes."""

    output: str | None = None
    pooling: Pooling | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    normalize: bool = True


class ImageEmbeddingConfig(TaskConfig):
    """The manifest's section."""

    preprocess: PreprocessConfig = PreprocessConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


class ImageEmbedding(Task):
    """Answers `{"embedding": […]}` for each image."""

    name: ClassVar[str] = "image-embedding"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(ImageEmbeddingConfig, config)

    @classmethod
    def pooled(cls, config: Mapping[str, Any], signature: Signature) -> Pooled:
        """See Task."""
        section = parse(ImageEmbeddingConfig, config).postprocess
        spec = float_output(section.output, signature)
        return Pooled(spec.name, _pooling(section, spec), _places(len(spec.shape), section.layout))

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        section = parse(ImageEmbeddingConfig, config)
        self._input = ImageInput(section.preprocess, signature, limits.max_pixels)
        self._vectors = ImageVectors(section.postprocess, signature)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One vector an image. Raises RunFailed where one holds what is no number."""
        return [{"embedding": vector} for vector in self._vectors.of(outputs).tolist()]


class ImageVectors:
    """One vector an image, bound to a model's output.

    `none` takes [items, size]; `mean` the mean over the places of [items, places, size], or of a map; `cls` the
    first place, as vision transformers have it.
    """

    def __init__(self, config: PostprocessConfig, signature: Signature) -> None:
        self._spec = float_output(config.output, signature)
        axes = len(self._spec.shape)
        self._pooling = _pooling(config, self._spec)
        self._layout = config.layout
        self._normalize = config.normalize
        if axes not in _USABLE[self._pooling]:
            usable = " or ".join(map(str, _USABLE[self._pooling]))
            raise InvalidPackage(
                f"The output {self._spec.name} has the shape {list(self._spec.shape)}, and pooling "
                f"{self._pooling} needs {usable} axes."
            )

    def of(self, outputs: Tensors) -> Vectors:
        """Float32 [items, size]. Raises RunFailed."""
        values = outputs[self._spec.name].astype(np.float32, copy=False)
        if values.ndim != len(self._spec.shape):
            raise RunFailed(f"The output {self._spec.name} has the shape {list(values.shape)}.")
        vectors = checked(self._pooled(values))
        return normalized(vectors) if self._normalize else vectors

    def _pooled(self, values: Vectors) -> Vectors:
        if self._pooling == "none":
            return values
        if self._pooling == "cls":
            return values[:, 0]
        return np.asarray(values.mean(axis=_places(values.ndim, self._layout)))


def _pooling(config: PostprocessConfig, output: TensorSpec) -> Pooling:
    return config.pooling or _BY_AXES.get(len(output.shape), "none")


def _places(axes: int, layout: str) -> tuple[int, ...]:
    """The axes of a map's places, or of a row of them."""
    if axes == 3:
        return (1,)
    return (2, 3) if layout == "NCHW" else (1, 2)


def float_output(name: str | None, signature: Signature) -> TensorSpec:
    """The output of that name, or the first. Raises InvalidPackage where there is none, or it holds no floats."""
    names = [spec.name for spec in signature.outputs]
    if name is not None and name not in names:
        raise InvalidPackage(f"There is no output {name[:80]!r}; the model has {', '.join(names)[:200]}.")
    spec = signature.outputs[0 if name is None else names.index(name)]
    if spec.dtype not in ("FP32", "FP16", "BF16", "FP64"):
        raise InvalidPackage(f"The output {spec.name} is {spec.dtype}, and embeddings are floats.")
    return spec
