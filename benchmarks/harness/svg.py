"""Plots as SVG text, written by hand: no library, and a diff shows what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#2563eb", "#94a3b8", "#f59e0b", "#10b981", "#a855f7", "#ef4444", "#0ea5e9", "#84cc16")
WIDTH, LABEL, RIGHT, BAR, GAP = 760, 130, 90, 18, 26


@dataclass(frozen=True)
class Bars:
    """Groups of named values, drawn as horizontal bars; each group has a scale of its own."""

    title: str
    unit: str
    groups: Mapping[str, Mapping[str, float]]


def bar_chart(bars: Bars) -> str:
    """A group under another, the bars in the order given."""
    names = list(dict.fromkeys(name for group in bars.groups.values() for name in group))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    parts, y = [_text(12, 24, f"{bars.title} ({bars.unit})", "t")], 44
    for label, group in bars.groups.items():
        parts.append(_text(12, y + 12, label, "g"))
        y += 20
        top = max(group.values(), default=0) or 1
        for name, value in group.items():
            width = (WIDTH - LABEL - RIGHT) * value / top
            parts.append(_text(LABEL - 8, y + BAR - 5, name, "n"))
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 3}" rx="2" fill="{colours[name]}"/>'
            )
            parts.append(_text(LABEL + width + 6, y + BAR - 5, _short(value), "v"))
            y += BAR
        y += GAP - BAR + 10
    return _document(WIDTH, y + 4, parts)


def line_chart(title: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over a common x, both axes from zero."""
    height, left, top, bottom = 320, 70, 44, 46
    points = [point for line in lines.values() for point in line]
    x_top = max((x for x, _ in points), default=1) or 1
    y_top = max((y for _, y in points), default=1) * 1.1 or 1
    plot_w, plot_h = WIDTH - left - 20, height - top - bottom
    parts = [_text(12, 24, title, "t"), _text(left + plot_w / 2, height - 10, x_label, "v")]
    for step in range(5):
        y = top + plot_h * (1 - step / 4)
        parts.append(f'<line x1="{left}" x2="{left + plot_w}" y1="{y:.1f}" y2="{y:.1f}" stroke="#cbd5e1"/>')
        parts.append(_text(left - 6, y + 4, _short(y_top * step / 4), "n"))
        parts.append(_text(left + plot_w * step / 4, top + plot_h + 16, _short(x_top * step / 4), "v"))
    parts.append(_text(12, top - 6, y_label, "v"))
    for index, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{left + plot_w * x / x_top:.1f},{top + plot_h * (1 - y / y_top):.1f}" for x, y in line)
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{path}"/>')
        where = f'x="{left + 10}" y="{top + 16 + 16 * index}"'
        parts.append(f'<text {where} style="fill:{colour}">{escape(name)}</text>')
    return _document(WIDTH, height, parts)


def _document(width: int, height: float, parts: Sequence[str]) -> str:
    style = (
        "text{font-family:system-ui,sans-serif;font-size:12px;fill:#334155}.t{font-size:15px;font-weight:600}"
        ".g{font-weight:600}.n{text-anchor:end}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}">\n<style>{style}</style>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f"{body}\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
