"""Figures and times as a person reads them; the filters of templates.

Latencies have two significant digits, sizes are in binary units, times are relative with the exact one on hover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

NOTHING: Final = "–"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS: Final = ((60.0, "second"), (60.0, "minute"), (24.0, "hour"), (30.0, "day"), (12.0, "month"), (0.0, "year"))
# Looked for in this order: each of them calls itself by the names below it as well.
_BROWSERS: Final = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
_NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"


def significant(value: float, digits: int = 2) -> str:
    """A number with so many significant digits, and never an exponent: 0.42, 6.1, 73, 4200."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NOTHING
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))  # 9.96 is 10, not 10.0
    return f"{rounded:.{max(0, decimals)}f}" if abs(rounded) < 1000 else count(round(rounded))


def ms(value: float | None) -> str:
    """Milliseconds; from 10,000 on in seconds."""
    if value is None:
        return NOTHING
    if value >= 10_000:
        return f"{significant(value / 1000)}{_NARROW_SPACE}s"
    return f"{significant(value)}{_NARROW_SPACE}ms"


def rate(value: float | None) -> str:
    """How many a second, without the unit."""
    if value is None:
        return NOTHING
    return "0" if value == 0 else significant(value, 3 if value >= 100 else 2)


def percent(value: float | None) -> str:
    """A share from 0 to 1."""
    if value is None:
        return NOTHING
    return f"{significant(value * 100) if value < 0.995 else round(value * 100)}{_NARROW_SPACE}%"


def count(value: int | None) -> str:
    """A whole number in groups of three."""
    return NOTHING if value is None else f"{value:,}"


def size(value: int | float | None) -> str:
    """Bytes in the unit that keeps the number under 1024."""
    if value is None:
        return NOTHING
    unit = min(len(_UNITS) - 1, int(math.log(value, 1024))) if value >= 1 else 0
    return f"{significant(value / 1024**unit, 3)}{_NARROW_SPACE}{_UNITS[unit]}"


def ago(at: datetime | None, now: datetime | None = None) -> Markup:
    """`<time>` with the distance in words; the exact time is its title, and a script keeps it true."""
    if at is None:
        return Markup("–")
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    text = distance(((now or datetime.now(UTC)) - at).total_seconds())
    exact = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(at.isoformat(), exact, text)


def distance(seconds: float) -> str:
    """`3 minutes ago`, `in 2 days`, `just now`."""
    span = abs(seconds)
    if span < 10:
        return "just now"
    unit = ""
    for length, name in _SPANS:
        unit = name
        if not length or span < length:
            break
        span /= length
    number = max(1, int(span))
    words = f"{number} {unit}" + ("s" if number != 1 else "")
    return f"{words} ago" if seconds > 0 else f"in {words}"


def browser(user_agent: str) -> str:
    """Which browser on which system a User-Agent means, where it is one of those that people use."""
    name = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if name is None:
        return user_agent[:60] or "unknown"
    return f"{name} on {system}" if system else name


def points(values: Sequence[float], width: float = 100, height: float = 24) -> str:
    """The points of an SVG polyline through these values, from 0 up; "" where there are fewer than two."""
    if len(values) < 2:
        return ""
    top = max(values) or 1.0
    step = width / (len(values) - 1)
    inner = height - 2
    return " ".join(f"{i * step:.1f},{height - 1 - value / top * inner:.1f}" for i, value in enumerate(values))
