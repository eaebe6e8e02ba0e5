"""What every image task does first: images of any size become one batch of the model's size and number range.

A value is `(pixel * scale - mean) / std`, channel by channel, for pixels of 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from core.errors import InvalidInput, InvalidPackage, PlatformError
from core.media import images, resample, resize
from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from core.tasks.base import Payload, Prepared
from core.tasks.config import TaskConfig
from core.tasks.placement import Placement

Size = tuple[int, int]
_CHANNELS = 3


class ResizeConfig(TaskConfig):
    """How an image comes to the model's size: [height, width] or one side, by default the signature's."""

    mode: Literal["center_crop", "stretch", "letterbox"] = "center_crop"
    size: int | tuple[int, int] | None = None
    crop_fraction: float = Field(0.875, gt=0, le=1)
    interpolation: resize.Interpolation = "bicubic"
    fill: int = Field(114, ge=0, le=255)
    align: resize.Align = "center"
    # A JPEG is decoded at a reduced scale that keeps this many times the pixels a side needs; 0 never reduces.
    # docs/tasks/image-classification.md counts the close answers that change, and what the exactness costs.
    oversample: float = Field(2.25, ge=0, le=16)

    @field_validator("size")
    @classmethod
    def _in_range(cls, size: int | Size | None) -> int | Size | None:
        for side in (size,) if isinstance(size, int) else size or ():
            if not 1 <= side <= 8192:
                raise ValueError("a side is 1 to 8192 pixels")
        return size


class PreprocessConfig(TaskConfig):
    """Layout, colour order, size and number range of the model's input."""

    layout: Literal["NCHW", "NHWC"] | None = None
    color: Literal["RGB", "BGR"] = "RGB"
    resize: ResizeConfig = ResizeConfig()
    mean: float | tuple[float, float, float] = 0.0
    std: float | tuple[float, float, float] = 1.0
    scale: float = 1.0

    @field_validator("mean", "std", "scale")
    @classmethod
    def _finite(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if not all(math.isfinite(v) for v in np.atleast_1d(value)):
            raise ValueError("numbers must be finite")
        return value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if not np.all(value):
            raise ValueError("it divides, and must not be 0")
        return value


class WholeResizeConfig(ResizeConfig):
    """For tasks that answer with places: by default all of the image is seen, its proportions kept."""

    mode: Literal["center_crop", "stretch", "letterbox"] = "letterbox"


class WholeImageConfig(PreprocessConfig):
    """`PreprocessConfig` for tasks that answer with places."""

    resize: WholeResizeConfig = WholeResizeConfig()


def refuse_crops(config: PreprocessConfig) -> None:
    """For tasks that answer for every pixel. Raises InvalidPackage where some of them would not be seen."""
    if config.resize.mode == "center_crop":
        raise InvalidPackage(
            "The manifest's field preprocess.resize.mode cannot be center_crop: what it cuts off has no answer."
        )


class ImageInput:
    """The preprocessing of one model, bound to its only input. Raises InvalidPackage where they do not fit."""

    def __init__(self, config: PreprocessConfig, signature: Signature, max_pixels: int) -> None:
        self._spec = _only_input(signature)
        self._resize = config.resize
        self._max_pixels = max_pixels
        self._layout = config.layout or _guess_layout(self._spec)
        self._size = _size(config.resize.size, self._spec, self._layout)
        self._channels = range(_CHANNELS) if config.color == "RGB" else range(_CHANNELS - 1, -1, -1)
        dtype = NUMPY_DTYPES[self._spec.dtype]
        # Pillow's own way, bit by bit: where that is asked for, and where whole numbers or very pixels are.
        resize_config = config.resize
        self._exact = (
            dtype.kind in "iu" or not resize_config.oversample or resize_config.interpolation == "nearest"
        )
        self._tables = _tables(config, dtype)
        self._as_they_are = bool((self._tables == np.arange(256)).all())
        self._factors, self._offsets = _affine(config)
        if config.color == "BGR":  # mean and std are given in the model's own order
            self._tables = self._tables[::-1]
            self._factors, self._offsets = self._factors[::-1], self._offsets[::-1]
        self._at_least = self._decode_size()

    @property
    def size(self) -> Size:
        """Height and width of what the model is given."""
        return self._size

    def prepare(self, payloads: Sequence[Payload]) -> Prepared:
        """One array [items, 3, height, width], or [items, height, width, 3], under the input's name; the contexts
        are each image's `Placement`.

        Errors name the image where there are several.
        """
        if not payloads:
            raise InvalidInput("The request holds no image.")
        batch = self._allocate(len(payloads))
        placements: list[Placement] = []
        for place, payload in enumerate(payloads):
            try:
                placements.append(self._fill(batch[place], payload))
            except PlatformError as error:
                if len(payloads) == 1:
                    raise
                which = f"Image {place + 1} of {len(payloads)}: {error.message}"
                raise type(error)(which) from error
        return Prepared({self._spec.name: batch}, placements)

    def _allocate(self, count: int) -> np.ndarray[Any, Any]:
        inner = (_CHANNELS, *self._size) if self._layout == "NCHW" else (*self._size, _CHANNELS)
        return np.empty((count, *inner), NUMPY_DTYPES[self._spec.dtype])

    def _fill(self, item: np.ndarray[Any, Any], payload: Payload) -> Placement:
        image = payload.image
        if image is None:
            image = images.decode_scaled(payload.data, max_pixels=self._max_pixels, at_least=self._at_least)
        seen = self._seen(image)
        # Rounded in a reduced image, the box would shift by a part of a pixel.
        box = resize.scaled(seen, image.scale, image.pixels)
        planes = item if self._layout == "NCHW" else item.transpose(2, 0, 1)
        if self._exact:
            pixels = self._pixels(image.pixels, box)
            for plane, channel in zip(planes, self._channels, strict=True):
                if self._as_they_are:  # in half the time
                    plane[...] = pixels[:, :, channel]
                else:
                    # A table of 256 values is exact for every dtype. `clip` only spares a bounds check.
                    np.take(self._tables[channel], pixels[:, :, channel], out=plane, mode="clip")
        else:
            levels = self._levels(image.pixels, box)
            for plane, channel in zip(planes, self._channels, strict=True):
                if plane.dtype == levels.dtype:  # there, samples lie side by side, and in the levels they do not
                    np.multiply(levels[channel], self._factors[channel], out=plane)
                    plane += self._offsets[channel]
                else:  # rounded once, at the end
                    np.add(levels[channel] * self._factors[channel], self._offsets[channel], out=plane)
        inner, top, left = self._size, 0, 0
        if self._resize.mode == "letterbox":
            inner, top, left = resize.inside(box, self._size, self._resize.align)
        return Placement(image.width, image.height, seen, inner, top, left)

    def _seen(self, image: images.Decoded) -> resize.Box:
        """The part of the original that the model sees."""
        if self._resize.mode == "center_crop":
            return resize.center_box(image.width, image.height, self._size, self._resize.crop_fraction)
        return 0, 0, image.width, image.height

    def _pixels(self, pixels: images.Pixels, box: resize.Box) -> images.Pixels:
        """[height, width, 3] of the model's size, in whole levels."""
        if self._resize.mode == "letterbox":
            how = self._resize
            return resize.letterbox(pixels, box, self._size, how.interpolation, how.fill, how.align)
        return resize.resample(pixels, box, self._size, self._resize.interpolation)

    def _levels(self, pixels: images.Pixels, box: resize.Box) -> resample.Floats:
        """[3, height, width] of the model's size, in levels from 0 to 255."""
        if self._resize.mode == "letterbox":
            how = self._resize
            return resample.letterbox(pixels, box, self._size, how.interpolation, how.fill, how.align)
        return resample.resample(pixels, box, self._size, self._resize.interpolation)

    def _decode_size(self) -> tuple[int, int] | None:
        """Width and height below which a decoder must not shrink an image."""
        if not self._resize.oversample or self._resize.interpolation == "nearest":  # that asks for the very pixels
            return None
        fraction = self._resize.crop_fraction if self._resize.mode == "center_crop" else 1.0
        height, width = (math.ceil(side * self._resize.oversample / fraction) for side in self._size)
        return width, height


def _only_input(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        raise InvalidPackage(f"An image task needs a model of one input; this one has {len(signature.inputs)}.")
    spec = signature.inputs[0]
    if len(spec.shape) != 4 or spec.dtype in ("BYTES", "BOOL"):
        raise InvalidPackage(
            f"The input {spec.name} ({spec.dtype}, {list(spec.shape)}) cannot hold a batch of images."
        )
    return spec


def _guess_layout(spec: TensorSpec) -> Literal["NCHW", "NHWC"]:
    return "NHWC" if spec.shape[3] == _CHANNELS and spec.shape[1] != _CHANNELS else "NCHW"


def _size(asked: int | Size | None, spec: TensorSpec, layout: str) -> Size:
    channels, *fixed = spec.shape[1:] if layout == "NCHW" else (spec.shape[3], *spec.shape[1:3])
    if channels not in (-1, _CHANNELS):
        raise InvalidPackage(f"The input {spec.name} has {channels} channels in layout {layout}, not {_CHANNELS}.")
    if asked is None:
        if -1 in fixed:
            raise InvalidPackage("The manifest's field preprocess.resize.size is needed: the input's is dynamic.")
        return fixed[0], fixed[1]
    size = (asked, asked) if isinstance(asked, int) else asked
    if any(have not in (-1, want) for have, want in zip(fixed, size, strict=True)):
        raise InvalidPackage(
            f"The manifest's field preprocess.resize.size is {list(size)}, but {spec.name} takes {fixed}."
        )
    return size


def _tables(config: PreprocessConfig, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The value of each of 256 levels for each channel, [3, 256]; whole-number dtypes are rounded and clipped."""
    levels = np.arange(256, dtype=np.float64)[None, :]
    mean, std = (np.broadcast_to(np.asarray(v, np.float64), _CHANNELS)[:, None] for v in (config.mean, config.std))
    values = (levels * config.scale - mean) / std
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    return values.astype(dtype)


def _affine(config: PreprocessConfig) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What each channel's levels are multiplied with, and what is added then, float32 [3] each."""
    mean, std = (np.broadcast_to(np.asarray(v, np.float64), _CHANNELS) for v in (config.mean, config.std))
    return (config.scale / std).astype(np.float32), (-mean / std).astype(np.float32)
