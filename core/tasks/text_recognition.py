"""`text-recognition`: the image of one line of text in, the text out.

For models that answer a distribution over characters for each step from left to right, trained with CTC (Graves
and others, "Connectionist Temporal Classification", 2006), such as those of PP-OCR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage, PlatformError
from core.media import images, resize
from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Padding, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.labels import read_labels

_STANDS = 1.5
"""What is so many times as tall as it is wide is a line on its side."""


class TextRecognitionPreprocess(TaskConfig):
    """A line is brought to the model's height, its proportions kept; `min_width` is filled up with 0."""

    color: Literal["RGB", "BGR"] = "BGR"
    min_width: int = Field(320, ge=1, le=8192)
    max_width: int = Field(3200, ge=16, le=8192)
    mean: float = 127.5
    std: float = Field(127.5, gt=0)


class TextRecognitionPostprocess(TaskConfig):
    """The first class is CTC's blank, then come the labels, and with `space` a blank between words."""

    space: bool = True


class TextRecognitionConfig(TaskConfig):
    """The manifest's section; `labels` are the characters, a list or the name of a file in the package."""

    preprocess: TextRecognitionPreprocess = TextRecognitionPreprocess()
    postprocess: TextRecognitionPostprocess = TextRecognitionPostprocess()
    labels: list[str] | str


class TextRecognition(Task):
    """Answers `{"text": …, "score": …}`: the mean of its characters' scores, 0 where there are none."""

    name: ClassVar[str] = "text-recognition"
    modality: ClassVar[str] = "image"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(TextRecognitionConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(TextRecognitionConfig, config)
        self._pre = checked.preprocess
        self._max_pixels = limits.max_pixels
        spec, output = signature.inputs[0], signature.outputs[0]
        fits = len(signature.inputs) == 1 and spec.dtype == "FP32" and len(spec.shape) == 4 and spec.shape[1] == 3
        if not fits or spec.shape[2] < 1 or spec.shape[3] != -1:
            raise InvalidPackage("text-recognition needs a model of one input, FP32 [batch, 3, height, -1].")
        self._input, self._output, self._height = spec.name, output.name, spec.shape[2]
        labels = read_labels(checked.labels, root) or []
        self._characters = ["", *labels, " "] if checked.postprocess.space else ["", *labels]
        classes = output.shape[-1] if output.shape else -1
        if classes not in (-1, len(self._characters)):
            raise InvalidPackage(
                f"There are {len(labels)} labels, which with the blank make {len(self._characters)} classes, but "
                f"the output {output.name} has {classes}."
            )

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """Lines of their own width each. Raises UnsupportedMedia, TooLarge or InvalidInput."""
        if not payloads:
            raise InvalidInput("The request holds no image.")
        lines = [self._line(payload, place, len(payloads)) for place, payload in enumerate(payloads)]
        lengths = [max(self._pre.min_width, line.shape[1]) for line in lines]
        batch = np.zeros((len(lines), 3, self._height, max(lengths)), np.float32)
        for item, line in zip(batch, lines, strict=True):
            ordered = line if self._pre.color == "RGB" else line[:, :, ::-1]
            inner = item[:, :, : line.shape[1]]
            inner[...] = (ordered.transpose(2, 0, 1).astype(np.float32) - self._pre.mean) / self._pre.std
        contexts: list[Any] = [None] * len(lines)
        return Prepared({self._input: batch}, contexts, lengths, {self._input: Padding(0, 3)})

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer a line."""
        return [self._answer(steps) for steps in outputs[self._output]]

    def check_outputs(self, outputs: Tensors) -> None:
        """Raises InvalidPackage where the output is no distribution over the characters."""
        shape = outputs[self._output].shape
        if len(shape) != 3 or shape[2] != len(self._characters):
            raise InvalidPackage(
                f"The output {self._output} {list(shape)} is not [batch, steps, {len(self._characters)}]."
            )

    def _line(self, payload: Payload, place: int, count: int) -> images.Pixels:
        try:
            image = payload.image or images.decode_scaled(payload.data, max_pixels=self._max_pixels)
        except PlatformError as error:
            if count == 1:
                raise
            raise type(error)(f"Image {place + 1} of {count}: {error.message}") from error
        pixels = image.pixels
        if pixels.shape[0] >= _STANDS * pixels.shape[1]:
            pixels = np.rot90(pixels)
        height, width = pixels.shape[:2]
        wide = min(self._pre.max_width, max(1, math.ceil(self._height * width / height)))
        return resize.resample(pixels, (0, 0, width, height), (self._height, wide), "bilinear")

    def _answer(self, steps: np.ndarray[Any, Any]) -> dict[str, Any]:
        """The likeliest class of each step, repetitions joined, blanks left out (section 3.2 there)."""
        best = steps.argmax(axis=1)
        kept = best != 0
        kept[1:] &= best[1:] != best[:-1]
        scores = steps[np.arange(len(best)), best][kept]
        text = "".join(self._characters[i] for i in best[kept].tolist())
        return {"text": text, "score": float(scores.mean()) if len(scores) else 0.0}
