"""`crop` and `resize`: pixels to pixels, never through a file format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from core.errors import InvalidInput
from core.media.images import Decoded
from core.pipelines.operation import Misfit, Operation, Option
from core.pipelines.types import BOX, IMAGE, POLYGON, Type

MAX_SIDE = 8192
Point = tuple[float, float]


class Crop(Operation):
    """The part of an image in a box, or in a polygon of four points, which is turned upright.

    A view of the same pixels for a box. What lies outside of the image is left away; at least one pixel stays.
    """

    ports: ClassVar[Mapping[str, Type | None]] = {"image": IMAGE, "box": None}
    options: ClassVar[Mapping[str, Option]] = {"margin": Option("number", 0.0, 0, 1)}

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        one = inputs["box"]
        if not any(kind in (BOX, POLYGON) for kind in (one, one.get("box"), one.get("polygon"))):
            raise Misfit(f"it takes a box, a polygon, or something that has one, not {one}.", "box")
        return {"image": IMAGE}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        image: Decoded = inputs["image"]
        place = inputs["box"]
        if isinstance(place, Mapping):
            place = place.get("polygon") or place.get("box")
        if isinstance(place, list) and len(place) == 4 and isinstance(place[0], list | tuple):
            return {"image": _warp(image, [_point(one) for one in place])}
        return {"image": _slice(image, _box(place), float(options["margin"]))}


class Resize(Operation):
    """An image in another size; with one side given, its proportions are kept."""

    ports: ClassVar[Mapping[str, Type | None]] = {"image": IMAGE}
    options: ClassVar[Mapping[str, Option]] = {
        "width": Option("integer", None, 1, MAX_SIDE),
        "height": Option("integer", None, 1, MAX_SIDE),
        "long_side": Option("integer", None, 1, MAX_SIDE),
    }
    heavy: ClassVar[bool] = True

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        sides = [name for name in ("width", "height") if options[name] is not None]
        if bool(sides) == (options["long_side"] is not None):
            raise Misfit("give `width`, `height` or both, or `long_side`.")
        return {"image": IMAGE}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        image: Decoded = inputs["image"]
        width, height = _size(image, options)
        small = Image.fromarray(np.ascontiguousarray(image.pixels)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        return {"image": whole(np.asarray(small))}


def whole(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Decoded:
    """An image of these pixels, uint8 RGB [height, width, 3]."""
    return Decoded(pixels, pixels.shape[1], pixels.shape[0], 1.0)


def _size(image: Decoded, options: Mapping[str, Any]) -> tuple[int, int]:
    long_side = options["long_side"]
    if long_side is not None:
        factor = long_side / max(image.width, image.height)
        return _side(image.width * factor), _side(image.height * factor)
    width, height = options["width"], options["height"]
    if width is None:
        return _side(image.width * height / image.height), height
    return width, height if height is not None else _side(image.height * width / image.width)


def _side(length: float) -> int:
    return min(MAX_SIDE, max(1, round(length)))


def _slice(image: Decoded, box: tuple[float, float, float, float], margin: float) -> Decoded:
    left, top, right, bottom = box
    dx, dy = (right - left) * margin, (bottom - top) * margin
    x1, x2 = _span(left - dx, right + dx, image.width)
    y1, y2 = _span(top - dy, bottom + dy, image.height)
    return whole(image.pixels[y1:y2, x1:x2])


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels that the span touches, inside of the image; at least one."""
    first = min(max(0, math.floor(low)), size - 1)
    return first, max(first + 1, min(size, math.ceil(high)))


def _warp(image: Decoded, points: list[Point]) -> Decoded:
    """The four points, clockwise from the top left, as the corners of an upright image."""
    p0, p1, p2, p3 = points
    width = _side(max(math.dist(p0, p1), math.dist(p3, p2)))
    height = _side(max(math.dist(p0, p3), math.dist(p1, p2)))
    x1, x2 = _span(min(x for x, _ in points) - 1, max(x for x, _ in points) + 1, image.width)
    y1, y2 = _span(min(y for _, y in points) - 1, max(y for _, y in points) + 1, image.height)
    around = Image.fromarray(np.ascontiguousarray(image.pixels[y1:y2, x1:x2]))
    source = [(x - x1, y - y1) for x, y in points]
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    try:
        coefficients = _perspective(corners, source)
    except np.linalg.LinAlgError as error:
        raise InvalidInput("the polygon's points lie on a line.") from error
    upright = around.transform(
        (width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    return whole(np.asarray(upright))


def _perspective(target: list[Point], source: list[Point]) -> list[float]:
    """The eight numbers of the projective map from `target` to `source` (Hartley and Zisserman, section 4.1)."""
    rows, sides = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        sides += [u, v]
    solved: list[float] = np.linalg.solve(np.array(rows, np.float64), np.array(sides, np.float64)).tolist()
    return solved


def _point(value: Any) -> Point:
    if len(value) != 2 or not all(_is_finite(one) for one in value):
        raise InvalidInput("a polygon is four points of two numbers each.")
    return float(value[0]), float(value[1])


def _box(value: Any) -> tuple[float, float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(_is_finite(one) for one in value):
        raise InvalidInput("a box is four numbers: left, top, right, bottom.")
    left, top, right, bottom = value
    return float(left), float(top), float(right), float(bottom)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
