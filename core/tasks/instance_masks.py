"""The mask of each detection, out of what instance segmenters answer beside their boxes."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from core.errors import InvalidPackage, RunFailed
from core.media import sampling
from core.signature import Signature, TensorSpec
from core.tasks.base import Tensors
from core.tasks.config import TaskConfig
from core.tasks.detection_outputs import Candidates, OutputsConfig, Reader, make_reader
from core.tasks.placement import Placement

Array = np.ndarray[Any, Any]


class MasksConfig(TaskConfig):
    """Where masks are.

    `prototypes`: planes [items, k, h, w], weighted by the k last values of a head's row.
    `image`: [items, n, h, w], each over all of the model's input.
    `box`: [items, n, h, w] or [items, n, classes, h, w], each over its box.
    """

    kind: Literal["prototypes", "image", "box"] = "prototypes"
    output: str | None = None
    activation: Literal["none", "sigmoid"] = "sigmoid"
    threshold: float = Field(0.5, gt=0, lt=1)


class Part(NamedTuple):
    """A mask bool [height, width], whose first pixel is at `left` and `top` of the original."""

    mask: Array
    left: int
    top: int


class MaskReader:
    """Reads boxes and their masks, of a model whose input is `size` (height, width)."""

    def __init__(
        self, config: MasksConfig, outputs: OutputsConfig, size: tuple[int, int], signature: Signature
    ) -> None:
        self._config = config
        self._size = size
        self._spec = _output(signature, config.output or "masks")
        self._head: str | None = None
        weights = self._prototypes(outputs) if config.kind == "prototypes" else 0
        if weights:
            self._head = outputs.outputs.head or signature.outputs[0].name
            self._axis = 0 if outputs.layout == "yolov8" else 1
            if self._head == self._spec.name:
                raise InvalidPackage(
                    "The manifest's fields postprocess.outputs.head and masks.output are the same."
                )
        self.boxes: Reader = make_reader(outputs, size, signature, weights)
        threshold = config.threshold
        self._least = threshold if config.activation == "none" else math.log(threshold / (1 - threshold))

    def _prototypes(self, outputs: OutputsConfig) -> int:
        shape = self._spec.shape
        if outputs.layout == "boxes":
            raise InvalidPackage(
                "The manifest's field postprocess.masks.kind cannot be prototypes with the layout boxes: their "
                "weights stand in a head."
            )
        if len(shape) != 4 or shape[1] == -1:
            raise InvalidPackage(
                f"The output {self._spec.name} {list(shape)} cannot hold a fixed number of prototypes."
            )
        return shape[1]

    def read(self, outputs: Tensors, item: int, found: Candidates, place: Placement) -> list[Part]:
        """The mask of each of the candidates, cut out of the original. Raises RunFailed."""
        planes = np.asarray(outputs[self._spec.name][item])
        if self._config.kind == "prototypes":
            return self._weighted(planes, outputs, item, found, place)
        if planes.ndim not in (3, 4) or len(planes) <= found.rows.max(initial=-1):
            raise RunFailed(f"The output {self._spec.name} has the shape {list(planes.shape)} for an image.")
        if planes.ndim == 4:  # a mask for each class
            of = found.classes if planes.shape[1] > 1 else np.zeros_like(found.classes)
            if len(of) and of.max() >= planes.shape[1]:
                raise RunFailed(f"The output {self._spec.name} has masks of {planes.shape[1]} classes.")
            chosen = planes[found.rows, of]
        else:
            chosen = planes[found.rows]
        chosen = chosen.astype(np.float32, copy=False)
        if self._config.kind == "image":
            rows, columns = self._axes(chosen.shape[1:], place)
            return [Part(sampling.above(plane, rows, columns, self._least), 0, 0) for plane in chosen]
        boxes = place.to_original(found.boxes, cut=False)
        return [self._inside(plane, box, place) for plane, box in zip(chosen, boxes, strict=True)]

    def _weighted(
        self, planes: Array, outputs: Tensors, item: int, found: Candidates, place: Placement
    ) -> list[Part]:
        """Sums of prototypes, cut off at their boxes: YOLACT's masks (arXiv 1904.02689, section 3.1)."""
        assert self._head is not None
        head = np.asarray(outputs[self._head][item])
        if planes.ndim != 3:
            raise RunFailed(f"The output {self._spec.name} has the shape {list(planes.shape)} for an image.")
        weights = head.take(found.rows, axis=1 - self._axis)
        weights = (weights.T if self._axis == 0 else weights)[:, -len(planes) :].astype(np.float32)
        height, width = planes.shape[1:]
        sums = (weights @ planes.reshape(len(planes), -1).astype(np.float32)).reshape(-1, height, width)
        rows, columns = self._axes((height, width), place)
        parts = []
        for plane, box in zip(sums, np.ceil(place.to_original(found.boxes)).astype(int).tolist(), strict=True):
            left, top, right, bottom = box
            mask = sampling.above(plane, rows.part(top, bottom), columns.part(left, right), self._least)
            parts.append(Part(mask, left, top))
        return parts

    def _inside(self, plane: Array, box: Array, place: Placement) -> Part:
        """A mask that fills its box."""
        x1, y1, x2, y2 = box.tolist()
        left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
        right, bottom = min(place.width, math.ceil(x2)), min(place.height, math.ceil(y2))
        down = (np.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * plane.shape[0] - 0.5
        across = (np.arange(left, right) + 0.5 - x1) / (x2 - x1) * plane.shape[1] - 0.5
        rows, columns = sampling.axis(down, plane.shape[0]), sampling.axis(across, plane.shape[1])
        return Part(sampling.above(plane, rows, columns, self._least), left, top)

    def _axes(self, of: tuple[int, int], place: Placement) -> tuple[sampling.Axis, sampling.Axis]:
        rows, columns = place.places(self._size, of)
        return sampling.axis(rows, of[0]), sampling.axis(columns, of[1])


def _output(signature: Signature, name: str) -> TensorSpec:
    for spec in signature.outputs:
        if spec.name == name:
            if spec.dtype == "BYTES" or (spec.shape and len(spec.shape) not in (4, 5)):
                raise InvalidPackage(f"The output {name} ({spec.dtype}, {list(spec.shape)}) cannot hold masks.")
            return spec
    known = ", ".join(spec.name for spec in signature.outputs[:20])
    raise InvalidPackage(f"The model has no output {name!r} for postprocess.masks.output; it has {known}.")
