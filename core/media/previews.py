"""What a browser is shown of media that a model was given: a picture, a coloured map, the shape of a sound."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, PngImagePlugin

from core.media import audio, images

SIDE: Final = 1280
"""Pixels of a preview's longer side, at most."""
_QUALITY: Final = 85
_OPACITY: Final = 140
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Preview:
    """An upright JPEG, and the size in pixels of the picture that it stands for."""

    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Waveform:
    """The loudest sample (0 to 1) of each of some equal parts of a recording, and its length in seconds."""

    peaks: list[float]
    seconds: float


def preview(data: bytes, *, max_pixels: int, side: int = SIDE) -> Preview:
    """A picture in a size for the screen. Raises as `images.decode_scaled`."""
    decoded = images.decode_scaled(data, max_pixels=max_pixels, at_least=(side, side))
    return Preview(jpeg_of(decoded, side), decoded.width, decoded.height)


def jpeg_of(decoded: images.Decoded, side: int) -> bytes:
    """A decoded picture as a JPEG whose longer side has at most so many pixels."""
    picture = Image.fromarray(np.ascontiguousarray(decoded.pixels))
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def coloured(png: str, colours: Sequence[Colour]) -> bytes:
    """A grey PNG of class numbers (as `masks.png_of_classes`) in these colours, half transparent, as PNG."""
    classes = np.asarray(PngImagePlugin.PngImageFile(io.BytesIO(base64.b64decode(png))))
    picture = Image.fromarray((classes % len(colours)).astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    picture.putpalette([level for colour in colours for level in colour])
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=bytes([_OPACITY] * len(colours)))
    return file.getvalue()


def waveform(data: bytes, *, max_seconds: float, max_bytes: int, parts: int = 240) -> Waveform:
    """The shape of a recording. Raises as `audio.decode`."""
    samples = audio.decode(data, max_seconds=max_seconds, max_bytes=max_bytes)
    edges = np.linspace(0, len(samples), min(parts, len(samples)) + 1).astype(np.int64)[:-1]
    peaks: np.ndarray[Any, Any] = np.maximum.reduceat(np.abs(samples), edges)
    return Waveform([min(1.0, float(peak)) for peak in peaks], len(samples) / audio.SAMPLE_RATE)
