"""`semantic-segmentation`: an image in, the class of each of its pixels out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidPackage, RunFailed
from core.media import masks, sampling
from core.signature import Signature, TensorSpec
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.detections import check_labels
from core.tasks.image_input import ImageInput, WholeImageConfig, refuse_crops
from core.tasks.labels import read_labels
from core.tasks.parameters import one_of
from core.tasks.placement import Placement

MASK_FORMATS: Final = ("png", "rle")
Classes = np.ndarray[Any, Any]


class PostprocessConfig(TaskConfig):
    """What the output is, and how masks are answered."""

    output: str | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    activation: Literal["none", "sigmoid"] = "none"
    threshold: float = Field(0.5, gt=0, lt=1)
    background: int | None = Field(None, ge=0)
    mask_format: Literal["png", "rle"] = "png"


class SegmentationConfig(TaskConfig):
    """The manifest's section; `labels` is a list, or the name of a file in the package, one label a line."""

    preprocess: WholeImageConfig = WholeImageConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


class SemanticSegmentation(Task):
    """Answers `{"masks": [{label, index, pixels, share}], "map", "image"}`, the largest first.

    `map` is a PNG in base64, in the size of the image, whose grey levels are the classes' indices; with the
    `parameters.mask_format` `rle` each mask has its run lengths instead.
    """

    name: ClassVar[str] = "semantic-segmentation"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        refuse_crops(parse(SegmentationConfig, config).preprocess)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(SegmentationConfig, config)
        refuse_crops(checked.preprocess)
        self._input = ImageInput(checked.preprocess, signature, limits.max_pixels)
        self._how = checked.postprocess
        self._spec = _output(signature, self._how.output)
        self._labels = read_labels(checked.labels, root)
        check_labels(self._labels, _count_classes(self._spec, self._how.layout))

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        self._format(parameters)  # a wrong one is refused before the work
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image, in the image's size."""
        format_ = self._format(parameters)
        output = self._checked(outputs)
        return [self._answer(self._classes(output[i], place), place, format_) for i, place in enumerate(contexts)]

    def check_outputs(self, outputs: Tensors) -> None:
        """Raises InvalidPackage or RunFailed where labels or shapes are not those of the manifest."""
        output = self._checked(outputs)
        if self._holds_classes(output):
            self._check_classes(output)

    def _checked(self, outputs: Tensors) -> np.ndarray[Any, Any]:
        output = outputs[self._spec.name]
        if output.ndim not in (3, 4):
            raise RunFailed(f"The output {self._spec.name} has the shape {list(output.shape)}: no map of classes.")
        if self._holds_classes(output):
            return output.reshape(len(output), *_plane(output.shape[1:]))
        if output.ndim == 3:
            output = output[:, None]
        elif self._how.layout == "NHWC":
            output = output.transpose(0, 3, 1, 2)
        count = max(2, output.shape[1])
        if self._labels is not None and count != len(self._labels):
            raise RunFailed(f"The model answered {count} classes, but there are {len(self._labels)} labels.")
        return output

    def _holds_classes(self, output: np.ndarray[Any, Any]) -> bool:
        """Whether the classes have been chosen in the model: whole numbers, one a place."""
        return output.dtype.kind in "iub"

    def _check_classes(self, classes: Classes) -> None:
        if classes.size and (classes.min() < 0 or classes.max() > np.iinfo(np.uint16).max):
            raise RunFailed(f"The output {self._spec.name} holds numbers that are no classes.")
        if self._labels is not None and classes.size and classes.max() >= len(self._labels):
            raise RunFailed(f"The model answered class {classes.max()}, but there are {len(self._labels)} labels.")

    def _classes(self, output: np.ndarray[Any, Any], place: Placement) -> Classes:
        """The class of each pixel of the original, uint8 or uint16 [height, width]."""
        rows, columns = place.places(self._input.size, (output.shape[-2], output.shape[-1]))
        if output.ndim == 2:
            self._check_classes(output)
            small = output.astype(np.uint8 if output.max(initial=0) < 256 else np.uint16)
            ys, xs = sampling.nearest(rows, len(output)), sampling.nearest(columns, output.shape[1])
            chosen: Classes = small[ys[:, None], xs]
            return chosen
        planes = output.astype(np.float32, copy=False)
        down, across = sampling.axis(rows, planes.shape[1]), sampling.axis(columns, planes.shape[2])
        if len(planes) == 1:
            return sampling.above(planes[0], down, across, self._least()).astype(np.uint8)
        return sampling.best_planes(planes, down, across)

    def _least(self) -> float:
        """From which value on a single plane is the second class."""
        threshold = self._how.threshold
        return threshold if self._how.activation == "none" else math.log(threshold / (1 - threshold))

    def _answer(self, classes: Classes, place: Placement, format_: str) -> dict[str, Any]:
        pixels = np.bincount(classes.ravel())
        found = [index for index in np.argsort(-pixels, kind="stable").tolist() if pixels[index]]
        answer: dict[str, Any] = {
            "masks": [
                self._mask(index, int(pixels[index]), classes.size)
                for index in found
                if index != self._how.background
            ],
            "image": place.size_json(),
        }
        if format_ == "png":
            answer["map"] = masks.png_of_classes(classes)
            return answer
        for mask in answer["masks"]:
            mask["mask"] = masks.runs_of(classes == mask["index"], 0, 0, (place.height, place.width))
        return answer

    def _mask(self, index: int, pixels: int, of: int) -> dict[str, Any]:
        label = self._labels[index] if self._labels is not None else str(index)
        return {"label": label, "index": index, "pixels": pixels, "share": round(pixels / of, 6)}

    def _format(self, parameters: Mapping[str, Any]) -> str:
        return one_of(parameters, "mask_format", self._how.mask_format, MASK_FORMATS)


def _output(signature: Signature, name: str | None) -> TensorSpec:
    wanted = signature.outputs[0].name if name is None else name
    for spec in signature.outputs:
        if spec.name == wanted:
            if spec.dtype == "BYTES" or (spec.shape and len(spec.shape) not in (3, 4)):
                raise InvalidPackage(
                    f"The output {wanted} ({spec.dtype}, {list(spec.shape)}) is no map of classes."
                )
            return spec
    known = ", ".join(spec.name for spec in signature.outputs[:20])
    raise InvalidPackage(f"The model has no output {wanted!r} for postprocess.output; it has {known}.")


def _count_classes(spec: TensorSpec, layout: str) -> int | None:
    """How many classes there are, as far as it is known; a single plane tells two apart."""
    if len(spec.shape) != 4 or not spec.dtype.startswith(("FP", "BF")):
        return 2 if len(spec.shape) == 3 and spec.dtype.startswith(("FP", "BF")) else None
    planes = spec.shape[1] if layout == "NCHW" else spec.shape[3]
    return None if planes == -1 else max(2, planes)


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    sides = [side for side in shape if side != 1] if len(shape) == 3 else list(shape)
    if len(sides) != 2:
        raise RunFailed(f"A map of classes has the shape {list(shape)}, not height and width.")
    return sides[0], sides[1]
