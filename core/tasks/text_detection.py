"""`text-detection`: an image in, the lines of text in it out, as turned rectangles in reading order.

For models of the kind DB (Liao and others, "Real-time Scene Text Detection with Differentiable Binarization",
2020), whose output says of each pixel how surely it is text, such as those of PP-OCR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage, PlatformError
from core.media import images, regions, resize
from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.parameters import fraction

Floats = np.ndarray[Any, np.dtype[np.float32]]


class TextDetectionPreprocess(TaskConfig):
    """An image is brought to sides of a multiple of `multiple`, its proportions nearly kept.

    No side stays longer than `max_side`; then an image whose shorter side is below `min_side` is enlarged to it.
    """

    color: Literal["RGB", "BGR"] = "BGR"
    min_side: int = Field(736, ge=32, le=4096)
    max_side: int = Field(2000, ge=32, le=8192)
    multiple: int = Field(32, ge=1, le=256)
    mean: float = 127.5
    std: float = Field(127.5, gt=0)


class TextDetectionPostprocess(TaskConfig):
    """From the map of text to rectangles: see docs/tasks/text-detection.md."""

    threshold: float = Field(0.3, ge=0, le=1)
    score_threshold: float = Field(0.5, ge=0, le=1)
    unclip_ratio: float = Field(1.6, gt=0, le=10)
    min_side: float = Field(3.0, ge=0)
    max_regions: int = Field(1000, ge=1, le=10_000)
    dilate: bool = True


class TextDetectionConfig(TaskConfig):
    """The manifest's section."""

    preprocess: TextDetectionPreprocess = TextDetectionPreprocess()
    postprocess: TextDetectionPostprocess = TextDetectionPostprocess()


@dataclass(frozen=True, slots=True)
class Seen:
    """The original's width and height, and those of what the model was given of it."""

    width: int
    height: int
    inner_width: int
    inner_height: int


class TextDetection(Task):
    """Answers `{"regions": [{polygon: [[x, y], …], score}], "image": {width, height}}`, polygons of four points
    clockwise from the top left. `parameters.score_threshold` overrides the manifest's.
    """

    name: ClassVar[str] = "text-detection"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(TextDetectionConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(TextDetectionConfig, config)
        self._pre, self._post = checked.preprocess, checked.postprocess
        self._max_pixels = limits.max_pixels
        spec = signature.inputs[0]
        if len(signature.inputs) != 1 or spec.dtype != "FP32" or len(spec.shape) != 4 or spec.shape[1] != 3:
            raise InvalidPackage("text-detection needs a model of one input, FP32 [batch, 3, height, width].")
        if any(side not in (-1,) for side in spec.shape[2:]):
            raise InvalidPackage(f"The input {spec.name} has a fixed size; text-detection needs a dynamic one.")
        self._input, self._output = spec.name, signature.outputs[0].name

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """One batch of all images, each at the top left of a canvas that is as large as the largest.

        Raises UnsupportedMedia, TooLarge or InvalidInput.
        """
        fraction(parameters, "score_threshold", self._post.score_threshold)
        if not payloads:
            raise InvalidInput("The request holds no image.")
        found = [self._resized(payload, place, len(payloads)) for place, payload in enumerate(payloads)]
        height, width = (max(pixels.shape[axis] for pixels, _ in found) for axis in (0, 1))
        batch = np.zeros((len(found), 3, height, width), np.float32)
        for item, (pixels, _) in zip(batch, found, strict=True):
            ordered = pixels if self._pre.color == "RGB" else pixels[:, :, ::-1]
            inner = item[:, : pixels.shape[0], : pixels.shape[1]]
            inner[...] = (ordered.transpose(2, 0, 1).astype(np.float32) - self._pre.mean) / self._pre.std
        return Prepared({self._input: batch}, [seen for _, seen in found])

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer an image."""
        least = fraction(parameters, "score_threshold", self._post.score_threshold)
        maps = outputs[self._output]
        return [self._answer(maps[item, 0], seen, least) for item, seen in enumerate(contexts)]

    def check_outputs(self, outputs: Tensors) -> None:
        """Raises InvalidPackage where the output is no map of text."""
        shape = outputs[self._output].shape
        if len(shape) != 4 or shape[1] != 1:
            raise InvalidPackage(f"The output {self._output} {list(shape)} is no map [batch, 1, height, width].")

    def _resized(self, payload: Payload, place: int, count: int) -> tuple[images.Pixels, Seen]:
        try:
            image = payload.image or images.decode_scaled(payload.data, max_pixels=self._max_pixels)
        except PlatformError as error:
            if count == 1:
                raise
            raise type(error)(f"Image {place + 1} of {count}: {error.message}") from error
        height, width = self._size(image.height, image.width)
        box = resize.scaled((0, 0, image.width, image.height), image.scale, image.pixels)
        pixels = resize.resample(image.pixels, box, (height, width), "bilinear")
        return pixels, Seen(image.width, image.height, width, height)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        config = self._pre
        longer, shorter = max(height, width), min(height, width)
        factor = max(min(1.0, config.max_side / longer), config.min_side / shorter)
        # What is very long and thin would become endless: its longer side has the last word.
        factor = min(factor, 2 * config.max_side / longer)
        sides = (max(1, round(side * factor / config.multiple)) * config.multiple for side in (height, width))
        return next(sides), next(sides)

    def _answer(self, probabilities: Floats, seen: Seen, least: float) -> dict[str, Any]:
        config = self._post
        probabilities = probabilities[: seen.inner_height, : seen.inner_width]
        mask = probabilities > config.threshold
        scale = np.array([seen.width / seen.inner_width, seen.height / seen.inner_height])
        found = []
        for points in regions.regions(_dilated(mask) if config.dilate else mask)[: config.max_regions]:
            corners, *sides = regions.smallest_rectangle(points)
            if min(sides) < config.min_side:
                continue
            score = regions.mean_within(probabilities, corners)
            if score < least:
                continue
            # A line is detected shrunken, by its area over its perimeter times a ratio (section 3.4 there).
            by = sides[0] * sides[1] * config.unclip_ratio / (2 * (sides[0] + sides[1]))
            placed = regions.from_top_left(regions.grown(corners, by) * scale)
            placed = placed.clip(0, [seen.width, seen.height])
            found.append((placed, score))
        return {
            "regions": [
                {"polygon": np.round(points, 2).tolist(), "score": score}
                for points, score in in_reading_order(found)
            ],
            "image": {"width": seen.width, "height": seen.height},
        }


def in_reading_order(found: list[tuple[regions.Points, float]]) -> list[tuple[regions.Points, float]]:
    """Line by line from the top, each from the left; a line goes on while its next top is within half a height."""
    by_top = sorted(found, key=lambda one: float(one[0][0][1]))
    ordered: list[tuple[regions.Points, float]] = []
    line: list[tuple[regions.Points, float]] = []
    for one in by_top:
        if line and one[0][0][1] - line[-1][0][0][1] > 0.5 * min(_height(one[0]), _height(line[-1][0])):
            ordered += sorted(line, key=lambda other: float(other[0][0][0]))
            line = []
        line.append(one)
    return ordered + sorted(line, key=lambda other: float(other[0][0][0]))


def _height(points: regions.Points) -> float:
    return float(np.hypot(*(points[3] - points[0])))


def _dilated(mask: regions.Mask) -> regions.Mask:
    """Grown by a pixel to the right and downwards, so that strokes that nearly touch are one."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    tall = wide.copy()
    tall[1:] |= wide[:-1]
    return tall
