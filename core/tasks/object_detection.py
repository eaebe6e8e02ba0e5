"""`object-detection`: an image in, boxes with their classes out, in pixels of the image as it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.detection_outputs import make_reader
from core.tasks.detections import Choice, PostprocessConfig, check_candidates, check_labels, detections
from core.tasks.image_input import ImageInput, WholeImageConfig
from core.tasks.labels import read_labels
from core.tasks.placement import Placement


class DetectionConfig(TaskConfig):
    """The manifest's section; `labels` is a list, or the name of a file in the package, one label a line."""

    preprocess: WholeImageConfig = WholeImageConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


class ObjectDetection(Task):
    """Answers `{"detections": [{label, index, score, box: [x1, y1, x2, y2]}], "image": {width, height}}`.

    `parameters.score_threshold`, `iou_threshold` and `max_detections` override the manifest's.
    """

    name: ClassVar[str] = "object-detection"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(DetectionConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(DetectionConfig, config)
        self._input = ImageInput(checked.preprocess, signature, limits.max_pixels)
        self._reader = make_reader(checked.postprocess, self._input.size, signature)
        self._choice = Choice.configured(checked.postprocess, self._reader)
        self._labels = read_labels(checked.labels, root)
        check_labels(self._labels, self._reader.classes)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        self._choice.asked(parameters)  # wrong ones are refused before the work
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image. Boxes that are no numbers, or lie outside of the image, are left out."""
        choice = self._choice.asked(parameters)
        return [self._answer(outputs, item, placement, choice) for item, placement in enumerate(contexts)]

    def check_outputs(self, outputs: Tensors) -> None:
        """Raises InvalidPackage where boxes, scores or classes cannot be what the manifest says."""
        check_candidates(self._reader, outputs, self._labels, self._input.size)

    def _answer(self, outputs: Tensors, item: int, placement: Placement, choice: Choice) -> dict[str, Any]:
        found = choice.of(self._reader, outputs, item)
        boxes = placement.to_original(found.boxes)
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return {
            "detections": detections(found.only(visible), boxes[visible], self._labels),
            "image": placement.size_json(),
        }
