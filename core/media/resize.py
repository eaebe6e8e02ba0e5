"""Boxes cut out of uint8 RGB arrays [height, width, 3] and brought to a size, by Pillow's antialiased filters.

A size is (height, width), a box (left, top, right, bottom) in pixels, fractions allowed.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Size = tuple[int, int]
Box = tuple[float, float, float, float]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Align = Literal["center", "top_left"]

_FILTERS: Final[dict[str, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def center_box(width: int, height: int, size: Size, fraction: float = 1.0) -> Box:
    """The largest centred box of the proportions of `size`, times `fraction`, in whole pixels."""
    if height * size[1] <= width * size[0]:
        sides = height * fraction * size[1] / size[0], height * fraction
    else:
        sides = width * fraction, width * fraction * size[0] / size[1]
    box_width, box_height = max(1, int(sides[0])), max(1, int(sides[1]))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def scaled(box: Box, scale: float, pixels: Pixels) -> Box:
    """`box` of an original image in the pixels of its copy at `scale`, no further than these reach."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = (side * scale for side in box)
    return left, top, min(right, width), min(bottom, height)


def resample(pixels: Pixels, box: Box, size: Size, interpolation: Interpolation = "bicubic") -> Pixels:
    """The box resized to `size`; nothing outside of the pixels that it touches has a part in it."""
    left, top = math.floor(box[0]), math.floor(box[1])
    part = pixels[top : math.ceil(box[3]), left : math.ceil(box[2])]
    inner = box[0] - left, box[1] - top, box[2] - left, box[3] - top
    if part.shape[:2] == size and inner == (0, 0, size[1], size[0]):
        return part
    # Pillow copies into its own layout anyway; it only needs the rows contiguous.
    image = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(image.resize((size[1], size[0]), _FILTERS[interpolation], box=inner))


def letterbox(
    pixels: Pixels,
    box: Box,
    size: Size,
    interpolation: Interpolation = "bicubic",
    fill: int = 114,
    align: Align = "center",
) -> Pixels:
    """The box resized to fit inside `size`, proportions kept, on grey `fill`."""
    inner, top, left = inside(box, size, align)
    canvas = np.full((*size, 3), fill, np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = resample(pixels, box, inner, interpolation)
    return canvas


def inside(box: Box, size: Size, align: Align = "center") -> tuple[Size, int, int]:
    """The largest size of the box's proportions inside of `size`, and where its top and left are."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    if align == "top_left":
        return inner, 0, 0
    return inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
