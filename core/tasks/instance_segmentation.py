"""`instance-segmentation`: an image in, a box, a class and a mask for each thing out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.media import masks
from core.signature import Signature
from core.tasks import detections
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.detections import Choice, check_candidates, check_labels
from core.tasks.image_input import ImageInput, WholeImageConfig, refuse_crops
from core.tasks.instance_masks import MaskReader, MasksConfig, Part
from core.tasks.labels import read_labels
from core.tasks.parameters import one_of
from core.tasks.placement import Placement
from core.tasks.semantic_segmentation import MASK_FORMATS


class PostprocessConfig(detections.PostprocessConfig):
    """Boxes as for `object-detection`, and what the masks are."""

    masks: MasksConfig = MasksConfig()
    mask_format: Literal["png", "rle"] = "png"


class InstanceConfig(TaskConfig):
    """The manifest's section; `labels` is a list, or the name of a file in the package, one label a line."""

    preprocess: WholeImageConfig = WholeImageConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


class InstanceSegmentation(Task):
    """Answers `{"masks": [{label, index, score, box, pixels, mask}], "image": {width, height}}`, best first.

    `mask` is a PNG of one bit a pixel in base64, or run lengths, in the size of the image.
    `parameters.mask_format`, `score_threshold`, `iou_threshold` and `max_detections` override the manifest's.
    """

    name: ClassVar[str] = "instance-segmentation"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        refuse_crops(parse(InstanceConfig, config).preprocess)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(InstanceConfig, config)
        refuse_crops(checked.preprocess)
        self._input = ImageInput(checked.preprocess, signature, limits.max_pixels)
        self._reader = MaskReader(checked.postprocess.masks, checked.postprocess, self._input.size, signature)
        self._choice = Choice.configured(checked.postprocess, self._reader.boxes)
        self._mask_format = checked.postprocess.mask_format
        self._labels = read_labels(checked.labels, root)
        check_labels(self._labels, self._reader.boxes.classes)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, in their order. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        self._choice.asked(parameters)  # wrong ones are refused before the work
        self._format(parameters)
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image, in the image's size."""
        choice, format_ = self._choice.asked(parameters), self._format(parameters)
        return [self._answer(outputs, item, place, choice, format_) for item, place in enumerate(contexts)]

    def check_outputs(self, outputs: Tensors) -> None:
        """Raises InvalidPackage where boxes, scores or classes cannot be what the manifest says."""
        check_candidates(self._reader.boxes, outputs, self._labels, self._input.size)

    def _answer(
        self, outputs: Tensors, item: int, place: Placement, choice: Choice, format_: str
    ) -> dict[str, Any]:
        found = choice.of(self._reader.boxes, outputs, item)
        boxes = place.to_original(found.boxes)
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        found, boxes = found.only(visible), boxes[visible]
        answers = detections.detections(found, boxes, self._labels)
        for answer, part in zip(answers, self._reader.read(outputs, item, found, place), strict=True):
            answer["pixels"] = int(part.mask.sum())
            answer["mask"] = _encoded(part, place, format_)
        return {"masks": answers, "image": place.size_json()}

    def _format(self, parameters: Mapping[str, Any]) -> str:
        return one_of(parameters, "mask_format", self._mask_format, MASK_FORMATS)


def _encoded(part: Part, place: Placement, format_: str) -> str | dict[str, list[int]]:
    encode = masks.png_of if format_ == "png" else masks.runs_of
    return encode(part.mask, part.left, part.top, (place.height, place.width))
