"""Where an image lies in what a model sees of it: the way back from the model's pixels to the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.media.resize import Box, Size

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Placement:
    """An upright image of `width` x `height`, whose part `seen` fills `inner` pixels from `top` and `left` on."""

    width: int
    height: int
    seen: Box
    inner: Size
    top: int
    left: int

    def to_original(self, boxes: Floats, *, cut: bool = True) -> Floats:
        """Boxes [n, 4] of corners (x1, y1, x2, y2) in the model's pixels as the original's, cut at its edges."""
        left, top, right, bottom = self.seen
        across, down = (right - left) / self.inner[1], (bottom - top) / self.inner[0]
        scale = np.array([across, down, across, down], np.float32)
        shift = np.array([left - self.left * across, top - self.top * down] * 2, np.float32)
        placed: Floats = boxes * scale + shift
        limits = np.array([self.width, self.height] * 2, np.float32)
        return placed.clip(0, limits) if cut else placed

    def places(self, size: Size, of: Size) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Where the original's rows and columns lie in an output of `of` (height, width) that covers the model's
        whole input of `size`, sample i at place i; float64 [height] and [width].
        """
        left, top, right, bottom = self.seen
        across, down = self.inner[1] / (right - left), self.inner[0] / (bottom - top)
        rows = (np.arange(self.height) + 0.5 - top) * down + self.top
        columns = (np.arange(self.width) + 0.5 - left) * across + self.left
        return rows * of[0] / size[0] - 0.5, columns * of[1] / size[1] - 0.5

    def size_json(self) -> dict[str, int]:
        """The original's size as answers give it."""
        return {"width": self.width, "height": self.height}
