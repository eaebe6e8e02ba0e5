"""What detectors answer, in its several layouts, as candidates: boxes, scores and classes.

- `boxes`: tensors of their own for boxes [items, n, 4] and scores, [items, n] with classes [items, n], or
  [items, n, classes]; and, in some, how many of them count [items].
- `yolov5`: one head [items, n, 5 + classes] of centre, size, objectness and class scores (YOLOv5 to v7, YOLOX).
- `yolov8`: one head [items, 4 + classes, n] of centre, size and class scores (YOLOv8, v9, 11).
- `rows`: one head [items, n, 6] of corners, score and class (YOLOv10, and exports that suppress by themselves).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from core.errors import InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks.base import Tensors
from core.tasks.class_scores import activate
from core.tasks.config import TaskConfig

Array = np.ndarray[Any, Any]
Layout = Literal["boxes", "yolov5", "yolov8", "rows"]
BoxFormat = Literal["xyxy", "cxcywh", "xywh", "yxyx"]


class OutputNames(TaskConfig):
    """Which of the model's outputs is what; `head` for the layouts of one tensor."""

    boxes: str | None = None
    scores: str | None = None
    classes: str | None = None
    count: str | None = None
    head: str | None = None


class OutputsConfig(TaskConfig):
    """How a detector's outputs are to be read."""

    layout: Layout = "boxes"
    outputs: OutputNames = OutputNames()
    box_format: BoxFormat | None = None
    box_unit: Literal["pixel", "fraction"] = "pixel"
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    background: Literal["none", "first", "last"] = "none"
    first_class: int = 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """Of one image: boxes float32 [n, 4] as corners in the model's pixels, scores float32 [n], classes int64 [n].

    `rows` int64 [n] says which of the model's own each is.
    """

    boxes: Array
    scores: Array
    classes: Array
    rows: Array

    def only(self, chosen: Array) -> Candidates:
        """Those that a mask or indices choose."""
        return Candidates(self.boxes[chosen], self.scores[chosen], self.classes[chosen], self.rows[chosen])


class Reader(ABC):
    """Reads one layout. `classes` is how many the model has, as far as its signature says."""

    needs_suppression = True
    box_format: BoxFormat = "cxcywh"
    classes: int | None = None

    def __init__(self, config: OutputsConfig, size: tuple[int, int]) -> None:
        self._config = config
        self._format = config.box_format or self.box_format
        height, width = size
        self.fractions = config.box_unit == "fraction"
        self._unit = np.array([width, height] * 2, np.float32) if self.fractions else None

    @abstractmethod
    def read(self, outputs: Tensors, item: int, least: float) -> Candidates:
        """The item's candidates whose score is at least `least`. Raises RunFailed for outputs of other shapes."""

    def count_classes(self, outputs: Tensors) -> int | None:
        """How many classes have been scored; None where the outputs do not tell."""
        return self.classes

    def _boxes(self, raw: Array) -> Array:
        """Corners in the model's pixels, of [n, 4] in the model's format."""
        raw = raw.astype(np.float32)
        if self._format == "yxyx":
            raw = raw[:, [1, 0, 3, 2]]
        elif self._format == "xywh":
            raw = np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)
        elif self._format == "cxcywh":
            half = raw[:, 2:] / 2
            with np.errstate(invalid="ignore"):  # what is no number is left out later
                raw = np.concatenate([raw[:, :2] - half, raw[:, :2] + half], axis=1)
        return raw if self._unit is None else np.asarray(raw * self._unit)

    def _activated(self, scores: Array) -> Array:
        how = "sigmoid" if self._config.activation == "sigmoid" else "none"
        return activate(scores.astype(np.float32, copy=False), how)


class HeadReader(Reader):
    """A layout of one tensor, whose rows may end in so many `weights` of masks."""

    extra = 0
    """Values of a row before its class scores."""
    axis = 2
    """Along which the values of a row lie."""

    def __init__(
        self, config: OutputsConfig, size: tuple[int, int], signature: Signature, weights: int = 0
    ) -> None:
        super().__init__(config, size)
        self._weights = weights
        if config.activation == "softmax" or config.background != "none":
            raise InvalidPackage(
                f"The manifest's fields postprocess.activation softmax and background are not for {config.layout}."
            )
        self._spec = _output(signature, config.outputs.head or signature.outputs[0].name, "head")
        _check_rank(self._spec, 3, "a detection head")
        self.classes = self._count()

    def _count(self) -> int | None:
        values = self._spec.shape[self.axis] if self._spec.shape else -1
        if values != -1 and values <= self.extra + self._weights:
            raise InvalidPackage(
                f"The output {self._spec.name} {list(self._spec.shape)} cannot be of the layout "
                f"{self._config.layout}: its axis {self.axis} must hold {self.extra} values, the class "
                f"scores{f' and {self._weights} weights of masks' if self._weights else ''}."
            )
        return None if values == -1 else values - self.extra - self._weights

    def count_classes(self, outputs: Tensors) -> int | None:
        """See Reader."""
        return int(outputs[self._spec.name].shape[self.axis]) - self.extra - self._weights

    def _item(self, outputs: Tensors, item: int) -> Array:
        value = outputs[self._spec.name]
        if value.ndim != 3:
            raise RunFailed(f"The output {self._spec.name} has the shape {list(value.shape)}, not three axes.")
        return np.asarray(value[item])

    def _scores(self, values: int) -> slice:
        """Where in a row of so many values the class scores stand."""
        if values <= self.extra + self._weights:
            raise RunFailed(
                f"The output {self._spec.name} has {values} values a box, which leaves none for classes."
            )
        return slice(self.extra, values - self._weights)

    def _pick(self, boxes: Array, scores: Array, best: Array, least: float) -> Candidates:
        """`scores` [n, classes] with `best` [n], the best of each row, not activated yet."""
        values = self._activated(best)
        rows = np.flatnonzero(values >= least)
        return Candidates(self._boxes(boxes[rows]), values[rows], scores[rows].argmax(axis=1), rows)


class YoloV8(HeadReader):
    """[items, 4 + classes, n]."""

    extra = 4
    axis = 1

    def read(self, outputs: Tensors, item: int, least: float) -> Candidates:
        """See Reader."""
        head = self._item(outputs, item)
        scores = head[self._scores(head.shape[0])]
        return self._pick(head[:4].T, scores.T, scores.max(axis=0), least)


class YoloV5(HeadReader):
    """[items, n, 5 + classes]; a score is objectness times class score."""

    extra = 5

    def read(self, outputs: Tensors, item: int, least: float) -> Candidates:
        """See Reader."""
        head = self._item(outputs, item)
        scores = self._scores(head.shape[1])
        objectness = self._activated(head[:, 4])
        able = np.flatnonzero(objectness >= least)  # class scores are at most 1: most rows end here
        found = head[able]
        values = objectness[able] * self._activated(found[:, scores].max(axis=1))
        kept = values >= least
        found = found[kept]
        return Candidates(self._boxes(found[:, :4]), values[kept], found[:, scores].argmax(axis=1), able[kept])


class Rows(HeadReader):
    """[items, n, 6]."""

    needs_suppression = False
    box_format: BoxFormat = "xyxy"

    def _count(self) -> None:
        if self._spec.shape and self._spec.shape[2] not in (-1, 6 + self._weights):
            raise InvalidPackage(
                f"The output {self._spec.name} {list(self._spec.shape)} cannot be of the layout rows: its last "
                f"axis must hold {6 + self._weights} values: a box, a score, a class, and the weights of "
                "a mask if it has one."
            )

    def count_classes(self, outputs: Tensors) -> None:
        """See Reader."""

    def read(self, outputs: Tensors, item: int, least: float) -> Candidates:
        """See Reader."""
        head = self._item(outputs, item)
        if head.shape[1] != 6 + self._weights:
            raise RunFailed(
                f"The output {self._spec.name} has rows of {head.shape[1]} values, not {6 + self._weights}."
            )
        scores = self._activated(head[:, 4])
        rows = np.flatnonzero(scores >= least)
        classes = _whole(head[rows, 5], self._spec.name) - self._config.first_class
        return Candidates(self._boxes(head[rows, :4]), scores[rows], classes, rows)


class Boxes(Reader):
    """Boxes, scores and classes in tensors of their own."""

    needs_suppression = False
    box_format: BoxFormat = "xyxy"

    def __init__(self, config: OutputsConfig, size: tuple[int, int], signature: Signature) -> None:
        super().__init__(config, size)
        names = config.outputs
        self._box_spec = _output(signature, names.boxes or "boxes", "boxes")
        _check_rank(self._box_spec, 3, "boxes")
        if self._box_spec.shape and self._box_spec.shape[2] not in (-1, 4):
            raise InvalidPackage(
                f"The output {self._box_spec.name} {list(self._box_spec.shape)} cannot hold boxes."
            )
        self._score_spec = _output(signature, names.scores or "scores", "scores")
        has_classes = names.classes is not None or any(spec.name == "classes" for spec in signature.outputs)
        self._class_spec = _output(signature, names.classes or "classes", "classes") if has_classes else None
        self._count_spec = _output(signature, names.count, "count") if names.count else None
        self._check_scores()

    def _check_scores(self) -> None:
        spec, config = self._score_spec, self._config
        if self._class_spec is not None:
            if config.activation == "softmax" or config.background != "none":
                raise InvalidPackage(
                    "The manifest's fields postprocess.activation softmax and background need class scores."
                )
            _check_rank(spec, 2, "one score a box")
            _check_rank(self._class_spec, 2, "one class a box")
            return
        _check_rank(spec, 3, "a score for each box and class (or name the output of classes)")
        columns = spec.shape[2] if spec.shape else -1
        self.classes = None if columns == -1 else columns - (config.background != "none")

    def count_classes(self, outputs: Tensors) -> int | None:
        """See Reader."""
        if self._class_spec is not None:
            return None
        return int(outputs[self._score_spec.name].shape[-1]) - (self._config.background != "none")

    def read(self, outputs: Tensors, item: int, least: float) -> Candidates:
        """See Reader."""
        boxes, scores = outputs[self._box_spec.name], outputs[self._score_spec.name]
        if boxes.ndim != 3 or boxes.shape[2] != 4:
            raise RunFailed(
                f"The output {self._box_spec.name} has the shape {list(boxes.shape)}, not [items, n, 4]."
            )
        if scores.ndim != (2 if self._class_spec else 3) or scores.shape[1] != boxes.shape[1]:
            raise RunFailed(
                f"The output {self._score_spec.name} has the shape {list(scores.shape)} for "
                f"{boxes.shape[1]} boxes."
            )
        values, classes = self._scores(outputs, item)
        rows = np.flatnonzero(values >= least)
        if self._count_spec is not None:
            rows = rows[rows < int(np.ravel(outputs[self._count_spec.name])[item])]
        return Candidates(self._boxes(boxes[item][rows]), values[rows], classes[rows], rows)

    def _scores(self, outputs: Tensors, item: int) -> tuple[Array, Array]:
        """The score [n] and class [n] of each box."""
        scores = np.asarray(outputs[self._score_spec.name][item])
        if self._class_spec is not None:
            classes = outputs[self._class_spec.name]
            if classes.shape[1:] != scores.shape:
                raise RunFailed(f"The output {self._class_spec.name} has the shape {list(classes.shape)}.")
            return self._activated(scores), _whole(classes[item], self._class_spec.name) - self._config.first_class
        if self._config.activation == "softmax":
            scores = activate(scores.astype(np.float32, copy=False), "softmax")
        columns = {"none": slice(None), "first": slice(1, None), "last": slice(None, -1)}
        scores = scores[:, columns[self._config.background]]
        if scores.shape[1] == 0:
            raise RunFailed(f"The output {self._score_spec.name} has no class besides the background.")
        return self._activated(scores.max(axis=1)), scores.argmax(axis=1)


_HEADS: Final[dict[str, type[HeadReader]]] = {"yolov5": YoloV5, "yolov8": YoloV8, "rows": Rows}


def make_reader(config: OutputsConfig, size: tuple[int, int], signature: Signature, weights: int = 0) -> Reader:
    """The reader of a layout, bound to a model whose input is `size` (height, width).

    The rows of its head end in so many `weights` of masks.
    Raises InvalidPackage where its outputs cannot be of that layout.
    """
    if config.layout == "boxes":
        return Boxes(config, size, signature)
    return _HEADS[config.layout](config, size, signature, weights)


def _output(signature: Signature, name: str, what: str) -> TensorSpec:
    for spec in signature.outputs:
        if spec.name == name:
            if spec.dtype in ("BYTES", "BOOL"):
                raise InvalidPackage(f"The output {name} is {spec.dtype} and cannot hold {what}.")
            return spec
    known = ", ".join(spec.name for spec in signature.outputs[:20])
    raise InvalidPackage(
        f"The model has no output {name!r} for the manifest's field postprocess.outputs.{what}; it has {known}."
    )


def _check_rank(spec: TensorSpec, rank: int, what: str) -> None:
    if spec.shape and len(spec.shape) != rank:  # none: the file does not say
        raise InvalidPackage(
            f"The output {spec.name} {list(spec.shape)} cannot hold {what}: it needs {rank} axes."
        )


def _whole(classes: Array, name: str) -> Array:
    """Class numbers as int64. Raises RunFailed where they are none: it is another output then."""
    with np.errstate(invalid="ignore"):
        whole = classes.astype(np.int64)
    if classes.dtype.kind == "f" and not np.array_equal(whole, classes):
        raise RunFailed(f"The output {name} holds numbers that are no classes.")
    return whole
