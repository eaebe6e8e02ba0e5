"""Where the names of boxes stand over a picture: none on another, all of them within it.

A name stands on its box's upper edge where there is room, otherwise inside of the box or below it. Where there is
none for the name, the number of its row stands there; where there is none for that either, the row has to do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.dashboard.pages.playground.shown import Shape

LETTERS_HIGH: Final = 40
"""So many lines of text fill the longer side of the picture."""
_PADDING: Final = 0.35
_LINE: Final = 1.35
_MOST_LETTERS: Final = 28
_NARROW: Final = frozenset("iIjlrft.,:;'|!()[] ")
_BROAD: Final = frozenset("mwMW@%&")


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in the picture's pixels."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Area) -> bool:
        """Whether they share any room."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A name, or a number, over the picture. `baseline` and `size` are those of its text."""

    of: Shape
    text: str
    area: Area
    x: float
    baseline: float
    size: float


def placed(shapes: Sequence[Shape], width: int, height: int) -> list[Label]:
    """The labels for which there is room on a picture of that size; the first shapes choose first."""
    size = max(width, height) / LETTERS_HIGH
    labels: list[Label] = []
    for shape in shapes:
        found = next(
            (
                (text, area)
                for text in (_name(shape), str(shape.number + 1))
                for area in _places(shape, _width(text) * size + 2 * _PADDING * size, _LINE * size)
                if _inside(area, width, height) and not any(area.overlaps(one.area) for one in labels)
            ),
            None,
        )
        if found is not None:
            text, area = found
            labels.append(Label(shape, text, area, area.x + _PADDING * size, area.y + size, size))
    return labels


def _name(shape: Shape) -> str:
    said = shape.label if len(shape.label) <= _MOST_LETTERS else f"{shape.label[: _MOST_LETTERS - 1]}…"
    return said if shape.score is None else f"{said} {shape.score:.0%}"


def _places(shape: Shape, width: float, height: float) -> Iterator[Area]:
    """The best first: on the box, in its corners, under it; then the same at its right end."""
    for x in (shape.x, shape.right - width):
        for y in (shape.y - height, shape.y, shape.bottom - height, shape.bottom):
            yield Area(x, y, width, height)


def _inside(area: Area, width: int, height: int) -> bool:
    slack = 0.5  # boxes end at the picture's edges, but for rounding
    return (
        area.x >= -slack
        and area.y >= -slack
        and area.x + area.width <= width + slack
        and area.y + area.height <= height + slack
    )


def _width(text: str) -> float:
    """The width of bold text in units of its size; the font is the reader's, so rather more than less."""
    return sum(_letter(one) for one in text)


def _letter(letter: str) -> float:
    if letter in _NARROW:
        return 0.4
    if letter in _BROAD:
        return 1.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    return 0.76 if letter.isupper() else 0.64
