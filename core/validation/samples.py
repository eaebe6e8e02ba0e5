"""Inputs and media made up for a dry run."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from core.tasks.base import Payload, Task

# Tried in turn for dynamic axes of which nothing is known: short sequences first, then usual image sizes.
_SIZES: Final = (8, 16, 64, 224, 1)
_SEED: Final = 7

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What dynamic axes are set to: `other` everywhere, and height and width where an image is expected."""

    other: int
    image: tuple[int, int] | None = None
    channels_last: bool = False

    def describe(self, signature: Signature) -> str:
        """What was used, as the end of a sentence; empty when only the batch is dynamic."""
        if not has_inner_dynamic(signature):
            return ""
        image = f" and {self.image[0]}x{self.image[1]} for the image" if self.image else ""
        return f"; other dynamic axes were set to {self.other}{image}"

    def shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        """The spec's shape with every dynamic axis filled in; a dynamic first axis is the batch."""
        sizes = [self.other] * len(spec.shape)
        if self.image and len(spec.shape) == 4:
            first = 1 if self.channels_last else 2
            sizes[first : first + 2] = self.image
        if sizes:
            sizes[0] = batch
        return tuple(size if known == -1 else known for known, size in zip(spec.shape, sizes, strict=True))


def has_inner_dynamic(signature: Signature) -> bool:
    """Whether an input has a dynamic axis besides the first."""
    return any(-1 in spec.shape[1:] for spec in signature.inputs)


def candidates(signature: Signature, preprocess: Mapping[str, Any]) -> Iterator[Sizes]:
    """Settings of the dynamic axes to try, the likeliest first; one when nothing but the batch is dynamic."""
    image = _image_size(preprocess)
    channels_last = preprocess.get("layout") == "NHWC"
    for size in _SIZES if has_inner_dynamic(signature) else _SIZES[:1]:
        yield Sizes(size, image, channels_last)


def make_inputs(signature: Signature, sizes: Sizes, batch: int) -> Arrays:
    """One array an input: floats in [0, 1), integers 0 or 1, short texts. The same on every call."""
    random = np.random.default_rng(_SEED)
    return {spec.name: _sample(spec, sizes.shape(spec, batch), random) for spec in signature.inputs}


def _sample(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray[Any, Any]:
    dtype = NUMPY_DTYPES[spec.dtype]
    if dtype.kind == "O":
        return np.full(shape, "a sample", dtype=object)
    if dtype.kind == "f":
        return random.random(shape, dtype=np.float32).astype(dtype)  # nosec B311  # NumPy's, seeded
    return random.integers(0, 2, shape).astype(dtype)


def _image_size(preprocess: Mapping[str, Any]) -> tuple[int, int] | None:
    resize = preprocess.get("resize")
    size = resize.get("size") if isinstance(resize, Mapping) else None
    if isinstance(size, int):
        return size, size
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    return None


def example_of(task: Task) -> Payload | None:
    """One piece of media that the task takes; None for tensors."""
    if task.modality == "image":
        return Payload(make_picture(), "image/png", "image")
    if task.modality == "audio":
        return Payload(make_recording(), "audio/wav", "audio")
    return task.example()


def make_recording() -> bytes:
    """A WAV of a second's silence at 16 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(bytes(32_000))
    return file.getvalue()


def make_picture() -> bytes:
    """A PNG of 96 x 64 pixels with a gradient in it."""
    from PIL import Image

    rows, columns = np.mgrid[0:64, 0:96]
    pixels = np.stack([rows * 4, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
