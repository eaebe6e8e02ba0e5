"""Masks as they go over the wire: PNG, or run lengths as COCO has them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Classes = np.ndarray[Any, Any]
Whole = tuple[int, int]
"""Height and width."""


def png_of_classes(classes: Classes) -> str:
    """An array [height, width] of class numbers as a grey PNG in base64, of 16 bits where they are uint16."""
    return _png(Image.fromarray(classes))


def png_of(mask: Mask, left: int, top: int, size: Whole) -> str:
    """A part of a mask, at its place in an image of `size`, as a PNG of one bit a pixel in base64; 1 is inside."""
    whole = Image.new("1", (size[1], size[0]))
    whole.paste(Image.fromarray(mask.astype(np.uint8) * 255), (left, top))
    return _png(whole)


def runs_of(mask: Mask, left: int, top: int, size: Whole) -> dict[str, list[int]]:
    """A part of a mask, at its place in an image of `size`, as `{size: [height, width], counts}`.

    `counts` are the lengths of runs of 0 and 1 in turn, beginning with 0, column by column: what COCO calls
    uncompressed RLE, and `pycocotools.mask.frPyObjects` reads.
    """
    height, width = size
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    padded[:, 1:-1] = mask.T
    changes = np.diff(padded, axis=1)  # columns end outside: each run begins and ends in its own
    columns, begins = np.nonzero(changes == 1)
    _, ends = np.nonzero(changes == -1)
    first = (columns + left) * height + top
    edges = np.stack([first + begins, first + ends], axis=1)
    # A run that reaches the image's foot goes on where the next column begins with one.
    together = edges[1:, 0] == edges[:-1, 1]
    kept_begins = edges[np.concatenate([[True], ~together])[: len(edges)], 0]
    kept_ends = edges[np.concatenate([~together, [True]])[: len(edges)], 1]
    bounds = np.empty(2 * len(kept_begins), np.int64)
    bounds[0::2], bounds[1::2] = kept_begins, kept_ends
    counts = np.diff(np.concatenate([[0], bounds, [height * width]])).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return {"size": [height, width], "counts": counts}


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # masks are flat: more effort hardly makes them smaller
    return base64.b64encode(file.getvalue()).decode("ascii")
