"""What detectors have in common once their outputs are read: which candidates are answered, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic import Field

from core.errors import InvalidPackage, RunFailed
from core.tasks.base import Tensors
from core.tasks.detection_outputs import Candidates, OutputsConfig, Reader
from core.tasks.parameters import fraction, whole_number
from core.tasks.suppression import suppress

MAX_DETECTIONS: Final = 1000
"""That an image may be answered with."""
_IOU_THRESHOLD: Final = 0.45
_HIGHEST: Final = 1.01
"""A score of 1 in half precision, with some room."""


class PostprocessConfig(OutputsConfig):
    """How the outputs are read, and which of the candidates are answered."""

    score_threshold: float = Field(0.25, ge=0, le=1)
    iou_threshold: float | None = Field(None, ge=0, le=1)
    max_detections: int = Field(100, ge=1, le=MAX_DETECTIONS)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which candidates are answered: from which score on, after which suppression (None: without), how many."""

    score_threshold: float
    iou_threshold: float | None
    max_detections: int

    @classmethod
    def configured(cls, config: PostprocessConfig, reader: Reader) -> Choice:
        """As the manifest wants it; raw heads are suppressed unless it says otherwise."""
        iou = config.iou_threshold
        if iou is None and reader.needs_suppression:
            iou = _IOU_THRESHOLD
        return cls(config.score_threshold, iou, config.max_detections)

    def asked(self, parameters: Mapping[str, Any]) -> Choice:
        """As a request wants it. Raises InvalidInput."""
        return Choice(
            fraction(parameters, "score_threshold", self.score_threshold),
            fraction(parameters, "iou_threshold", self.iou_threshold),
            whole_number(parameters, "max_detections", self.max_detections, MAX_DETECTIONS),
        )

    def of(self, reader: Reader, outputs: Tensors, item: int) -> Candidates:
        """The item's candidates that are answered, best first; without padding and NaN. Raises RunFailed."""
        found = reader.read(outputs, item, self.score_threshold)
        usable = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.scores) & (found.classes >= 0)
        found = found.only(usable)
        if self.iou_threshold is None or self.iou_threshold >= 1:
            return found.only(np.argsort(-found.scores, kind="stable")[: self.max_detections])
        kept = suppress(found.boxes, found.scores, found.classes, self.iou_threshold, self.max_detections)
        return found.only(kept)


def detections(found: Candidates, boxes: np.ndarray[Any, Any], labels: list[str] | None) -> list[dict[str, Any]]:
    """`{label, index, score, box}` each; `boxes` [n, 4] in pixels of the original, given to a hundredth.

    Raises RunFailed for a class without a label.
    """
    if labels is not None and len(found.classes) and found.classes.max() >= len(labels):
        raise RunFailed(f"The model answered class {found.classes.max()}, but there are {len(labels)} labels.")
    places = boxes.astype(np.float64).round(2).tolist()
    return [
        {"label": labels[index] if labels is not None else str(index), "index": index, "score": score, "box": box}
        for index, score, box in zip(found.classes.tolist(), found.scores.tolist(), places, strict=True)
    ]


def check_labels(labels: list[str] | None, classes: int | None) -> None:
    """Raises InvalidPackage where a model of so many classes cannot have these labels."""
    if labels is not None and classes is not None and len(labels) != classes:
        raise InvalidPackage(f"There are {len(labels)} labels, but the model has {classes} classes.")


def check_candidates(reader: Reader, outputs: Tensors, labels: list[str] | None, size: tuple[int, int]) -> None:
    """Hold everything that a dry run answered against the manifest. Raises InvalidPackage or RunFailed."""
    for item in range(len(next(iter(outputs.values())))):
        _check(reader.read(outputs, item, 0.0), labels, reader.fractions, size)
    check_labels(labels, reader.count_classes(outputs))


def _check(found: Candidates, labels: list[str] | None, fractions: bool, size: tuple[int, int]) -> None:
    found = found.only(np.isfinite(found.boxes).all(axis=1) & (found.classes >= 0))
    if not len(found.scores):
        return
    if found.scores.max() > _HIGHEST:
        raise InvalidPackage(
            f"The scores reach {found.scores.max():g}, more than 1: postprocess.outputs names another output "
            "than the scores, or postprocess.activation is missing."
        )
    if labels is not None and found.classes.max() >= len(labels):
        raise InvalidPackage(
            f"The model answered class {found.classes.max()}, but there are {len(labels)} labels; give one for "
            "each class, or set postprocess.first_class."
        )
    wide = (found.boxes[:, 2:] >= found.boxes[:, :2]).all(axis=1)
    if wide.mean() < 0.5:
        raise InvalidPackage(
            "Most boxes end before they begin: postprocess.outputs.boxes or postprocess.box_format is another one."
        )
    reach = float(np.abs(found.boxes).max()) / max(size)
    if fractions and reach > 10:
        raise InvalidPackage("The boxes are no fractions of the image: set postprocess.box_unit to pixel.")
    if not fractions and 0 < reach * max(size) <= 1.5:
        raise InvalidPackage("The boxes seem to be fractions of the image: set postprocess.box_unit to fraction.")
