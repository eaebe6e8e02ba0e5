"""An answer of the native API as things to be drawn: bars, boxes, regions, masks, texts, tensors.

What a field is, its form says, not its task: so the answers of pipelines, whose fields have any names, are drawn
too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import orjson

TONES: Final = 8
"""Colours by the number of a thing; those of `.segment-N` in css/components.css."""
MOST_ROWS: Final = 200
"""Of one list; a page with more helps nobody, and the raw answer has them all."""
_AROUND: Final = frozenset(
    {"request_id", "model", "version", "task", "timing_ms", "cached", "image", "node_timings"}
)
_NAMES: Final = ("label", "thing", "name", "text", "class")
_STEPS: Final = ("queue", "preprocess", "infer", "postprocess")
_LONG_TEXT: Final = 200
_SHORT_TEXT: Final = 60
_LONG_LIST: Final = 24
_LEAST_VECTOR: Final = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """Something at a place of the picture. `points` are those of an SVG polygon, in the picture's pixels."""

    number: int
    label: str
    score: float | None
    points: str
    x: float
    y: float
    right: float
    bottom: float
    mask: str = ""
    """A PNG in base64 of the picture's size."""
    detail: str = ""

    @property
    def tone(self) -> int:
        """Which colour."""
        return self.number % TONES


@dataclass(frozen=True, slots=True)
class Bar:
    """A label with a score; `share` (0 to 1) is its length."""

    label: str
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class Region:
    """A class and how much of the picture it takes, 0 to 1."""

    label: str
    share: float
    tone: int


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a recording in seconds, with what was said in it."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Entity:
    """A named part of a text: the characters from `start` to before `end`."""

    label: str
    text: str
    score: float | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output tensor, its first values as text."""

    name: str
    dtype: str
    shape: str
    values: str


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a pipeline: when it ran, in milliseconds since the run began."""

    name: str
    calls: int
    start: float
    end: float


@dataclass(slots=True)
class Shown:
    """One answer, sorted by how it is drawn."""

    model: str
    version: int
    task: str
    total_ms: float
    timing: list[tuple[str, float]]
    raw: str
    cached: bool = False
    shapes: list[Shape] = field(default_factory=list)
    bars: list[tuple[str, list[Bar]]] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    map_png: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    entities: list[Entity] = field(default_factory=list)
    vectors: list[tuple[str, int, list[float]]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Lists of the answer that hold nothing."""


def shown(answer: Mapping[str, Any]) -> Shown:
    """Sort an answer as the native API gives it for one item."""
    timing = answer["timing_ms"]
    parts = [(name, float(timing[name])) for name in _STEPS]
    rest = float(timing["total"]) - sum(amount for _, amount in parts)
    if rest >= 0.05:
        parts.append(("between", rest))
    found = Shown(
        model=answer["model"],
        version=answer["version"],
        task=answer["task"],
        total_ms=float(timing["total"]),
        timing=parts,
        raw=pretty(answer),
        cached=bool(answer.get("cached")),
        steps=_steps(answer.get("node_timings")),
    )
    numbers = count()
    for name, value in answer.items():
        if name not in _AROUND:
            _sort(found, name, value, numbers)
    return found


def _sort(found: Shown, name: str, value: Any, numbers: Any) -> None:
    if isinstance(value, list) and not value:
        found.empty.append(name)
    elif _all_have(value, "box") or _all_have(value, "polygon"):
        found.shapes += [_shape(next(numbers), one, name) for one in value[:MOST_ROWS]]
    elif _all_have(value, "label", "share"):
        found.regions += [
            Region(str(one["label"]), _number(one["share"]) or 0.0, int(_number(one.get("index")) or 0) % TONES)
            for one in value[:MOST_ROWS]
        ]
    elif _all_have(value, "label", "start", "end"):
        found.entities += [_entity(one) for one in value[:MOST_ROWS]]
    elif _all_have(value, "label", "score"):
        found.bars.append((name, _bars(value[:MOST_ROWS])))
    elif _all_have(value, "start", "end"):
        found.spans += [
            Span(_number(one["start"]) or 0.0, _number(one["end"]) or 0.0, str(one.get("text", "")))
            for one in value[:MOST_ROWS]
        ]
    elif _all_have(value, "name", "dtype", "shape", "data"):
        found.tensors += [_tensor(one) for one in value[:MOST_ROWS]]
    elif isinstance(value, list) and len(value) >= _LEAST_VECTOR and all(_is_number(one) for one in value):
        found.vectors.append((name, len(value), [float(one) for one in value[:512]]))
    elif name == "map" and isinstance(value, str):
        found.map_png = value
    elif isinstance(value, str | int | float) and name != "text" and len(str(value)) <= _SHORT_TEXT:
        found.facts.append((name, str(_short(value))))
    elif isinstance(value, str):
        found.texts.append((name, value))
    else:
        found.others.append((name, pretty(value)))


def _shape(number: int, item: Mapping[str, Any], field_name: str) -> Shape:
    box, polygon = item.get("box"), item.get("polygon")
    corners: Sequence[Any] = polygon or ()
    if isinstance(box, list) and len(box) == 4:
        x1, y1, x2, y2 = box
        corners = corners or ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    points = [(_number(x) or 0.0, _number(y) or 0.0) for x, y in corners]
    named = next((name for name in _NAMES if isinstance(item.get(name), str)), None)
    mask = item.get("mask")
    return Shape(
        number=number,
        label=item[named] if named else f"{field_name} {number + 1}",
        score=_number(item.get("score")),
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        x=min((x for x, _ in points), default=0.0),
        y=min((y for _, y in points), default=0.0),
        right=max((x for x, _ in points), default=0.0),
        bottom=max((y for _, y in points), default=0.0),
        mask=mask if isinstance(mask, str) else "",
        detail=_detail(item, {named, "score", "box", "polygon", "mask", "index"}),
    )


def _entity(one: Mapping[str, Any]) -> Entity:
    start, end = (int(_number(one[name]) or 0) for name in ("start", "end"))
    return Entity(str(one["label"]), str(one.get("text", "")), _number(one.get("score")), start, end)


def _detail(item: Mapping[str, Any], known: set[str | None]) -> str:
    """What else an item says, in a line."""
    said = []
    for name, value in item.items():
        if name in known:
            continue
        if _all_have(value, "label", "score"):
            said.append(", ".join(f"{one['label']} {_percent(one['score'])}" for one in value[:3]))
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            said.append(f"{name}: {_short(value)}")
    return " · ".join(said)


def _bars(items: Sequence[Mapping[str, Any]]) -> list[Bar]:
    scores = [_number(one["score"]) for one in items]
    top = max([1.0, *(score for score in scores if score is not None)])
    return [
        Bar(str(one["label"]), score or 0.0, max(0.0, (score or 0.0) / top))
        for one, score in zip(items, scores, strict=True)
    ]


def _tensor(one: Mapping[str, Any]) -> Tensor:
    data = one["data"] if isinstance(one["data"], list) else []
    values = ", ".join(str(_short(value)) for value in data[:_LONG_LIST])
    more = f" … {len(data) - _LONG_LIST:,} more" if len(data) > _LONG_LIST else ""
    shape = " × ".join(str(axis) for axis in one["shape"]) or "a single value"
    return Tensor(str(one["name"]), str(one["dtype"]), shape, values + more)


def _steps(timings: Any) -> list[Step]:
    if not isinstance(timings, dict):
        return []
    return [Step(name, int(one["calls"]), one["start"], one["end"]) for name, one in timings.items()][:MOST_ROWS]


def pretty(value: Any) -> str:
    """JSON to be read: indented, with what is long cut short and its length told."""
    return orjson.dumps(shortened(value), option=orjson.OPT_INDENT_2).decode()


def shortened(value: Any) -> Any:
    """The same with the middle of long texts and the end of long lists replaced by how much there is."""
    if isinstance(value, dict):
        return {name: shortened(one) for name, one in value.items()}
    if isinstance(value, list):
        told = [shortened(one) for one in value[:_LONG_LIST]]
        left = len(value) - _LONG_LIST
        return [*told, f"… {left:,} more"] if left > 0 else told
    if isinstance(value, str) and len(value) > _LONG_TEXT and " " not in value[:_LONG_TEXT]:  # base64, not prose
        return f"{value[:48]}… {len(value) - 48:,} more characters"
    return value


def _all_have(value: Any, *names: str) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and all(name in one for name in names) for one in value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) and math.isfinite(value) else None


def _percent(score: Any) -> str:
    number = _number(score)
    return "–" if number is None else f"{number:.0%}"


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
