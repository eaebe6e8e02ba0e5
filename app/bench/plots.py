"""Plots as SVG text for a page that brings the style: colours are classes, so that they follow light and dark.

They are 420 units wide, so that their text can be read on a telephone; each has a title and a description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from app.bench.table import ms

WIDTH, NAME = 420, 58
_BAR, _ROW, _HEAD, _GAP = 15, 20, 20, 8
_CHARACTER = 7.6
"""About the width of one."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A named value; `mark` is a second one further right, drawn as a whisker."""

    name: str
    value: float
    label: str
    mark: float | None = None


def bars(key: str, title: str, told: str, groups: Mapping[str, Sequence[Bar]], *, common: bool) -> str:
    """Groups of horizontal bars; with `common` they share one scale, else each has its own."""
    room = (
        WIDTH - NAME - 8 - _CHARACTER * max((len(b.label) for group in groups.values() for b in group), default=0)
    )
    tops = {name: max((max(b.value, b.mark or 0) for b in group), default=0) for name, group in groups.items()}
    most = max(tops.values(), default=0)
    parts: list[str] = []
    y = 0.0
    for name, group in groups.items():
        parts.append(_text(0, y + 14, name, "head"))
        y += _HEAD
        for bar in group:
            parts += _bar(bar, y, room / ((most if common else tops[name]) or 1))
            y += _ROW
        y += _GAP
    return _svg(key, title, told, y, parts)


def stacks(key: str, title: str, told: str, groups: Mapping[str, Sequence[Bar]]) -> str:
    """One bar a group, made of its parts, always as long as the plot is wide; what is below zero has no length."""
    parts: list[str] = []
    y = 0.0
    for name, group in groups.items():
        parts.append(_text(0, y + 14, name, "head"))
        y += _HEAD
        whole = sum(max(0.0, part.value) for part in group) or 1
        x = 0.0
        for part in group:
            width = WIDTH * max(0.0, part.value) / whole
            parts.append(_rect(x, y, width, 22, part.name))
            if width > _CHARACTER * (len(part.label) + 2):
                parts.append(_text(x + width / 2, y + 15.5, part.label, "inside"))
            x += width
        y += 22 + _GAP
        legend = ", ".join(f"{part.name} {part.label}" for part in group)
        parts.append(_text(0, y + 6, legend, "note"))
        y += 16 + _GAP
    return _svg(key, title, told, y, parts)


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    width = scale * bar.value
    parts = [_text(NAME - 8, y + 12, bar.name, "name"), _rect(NAME, y, width, _BAR, bar.name)]
    end = width
    if bar.mark is not None and bar.mark > bar.value:
        end, middle = scale * bar.mark, y + _BAR / 2
        parts.append(f'<path class="whisker" d="M{NAME + width:.1f} {middle}H{NAME + end:.1f}m0 -5v10"/>')
    parts.append(_text(NAME + end + 6, y + 12, bar.label, "value"))
    return parts


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    size = f'width="{max(width, 0):.1f}" height="{height}"'
    return f'<rect class="{escape(kind)}" x="{x:.1f}" y="{y:.1f}" {size} rx="2"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(key: str, title: str, told: str, height: float, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'aria-labelledby="{key}-title {key}-told"><title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-told">{escape(told)}</desc>{body}</svg>'
    )


def milliseconds(value: float | None) -> str:
    """As in a table, with the unit."""
    return f"{ms(value)} ms"
