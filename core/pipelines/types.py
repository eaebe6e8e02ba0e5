"""The types of what runs along a pipeline's edges, and which fits where.

Written as `image`, `audio`, `text`, `number`, `boolean`, `json`, `box`, `polygon`, `embedding [384]`,
`tensor FP32 [-1, 3]`, `label`, `labels`, `detection`, `detections`, or `list of` any of them; shapes and dtypes
may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from core.signature import NUMPY_DTYPES

MAX_AXES: Final = 8
_TENSOR: Final = re.compile(r"tensor(?: ([A-Z0-9]+))?(?: ?\[([-\d, ]*)\])?")
_EMBEDDING: Final = re.compile(r"embedding(?: ?\[(\d{1,6})\])?")


@dataclass(frozen=True, slots=True)
class Type:
    """A type. A list has its `item`, a record its `fields` by name, a tensor its dtype and shape.

    `dtype` is empty and `shape` None where they are not known; an embedding is a tensor of one axis.
    """

    kind: str
    item: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    name: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.name:
            return self.name
        if self.kind == "list":
            return f"list of {self.item}"
        if self.kind == "record":
            names = [name for name, _ in self.fields]
            return "{" + ", ".join(names[:6]) + (", …}" if len(names) > 6 else "}")
        said = f" {self.dtype}" if self.dtype and self.kind == "tensor" else ""
        return self.kind + said + (f" {list(self.shape)}" if self.shape is not None else "")

    def get(self, name: str) -> Type | None:
        """The type of a record's field."""
        return dict(self.fields).get(name)


IMAGE: Final = Type("image")
AUDIO: Final = Type("audio")
TEXT: Final = Type("text")
NUMBER: Final = Type("number")
BOOLEAN: Final = Type("boolean")
JSON: Final = Type("json")
EMBEDDING: Final = Type("embedding")
TENSOR: Final = Type("tensor")


def list_of(item: Type) -> Type:
    """A list of items of one type."""
    names = {"label": "labels", "detection": "detections"}
    return Type("list", item, name=names.get(item.name, ""))


def record(fields: Mapping[str, Type], name: str = "") -> Type:
    """Values by name."""
    return Type("record", fields=tuple(fields.items()), name=name)


BOX: Final = Type("box")
"""Four numbers, in pixels of its image: left, top, right, bottom."""
POLYGON: Final = Type("polygon")
"""Four points [x, y], in pixels of their image, clockwise from the top left."""
LABEL: Final = record({"label": TEXT, "index": NUMBER, "score": NUMBER}, "label")
DETECTION: Final = record({"label": TEXT, "index": NUMBER, "score": NUMBER, "box": BOX}, "detection")
LABELS: Final = list_of(LABEL)
DETECTIONS: Final = list_of(DETECTION)

_PLAIN: Final[Mapping[str, Type]] = {
    **{one.kind: one for one in (IMAGE, AUDIO, TEXT, NUMBER, BOOLEAN, JSON, BOX, POLYGON)},
    "label": LABEL,
    "labels": LABELS,
    "detection": DETECTION,
    "detections": DETECTIONS,
}
NAMES: Final = (*_PLAIN, "embedding", "tensor", "list of …")
_NOT_JSON: Final = frozenset({"image", "audio"})


def parse_type(text: str) -> Type | None:
    """Read a type as it is written; None where there is no such type."""
    if text in _PLAIN:
        return _PLAIN[text]
    if text.startswith("list of "):
        item = parse_type(text.removeprefix("list of ").strip()) if text.count("list of") <= MAX_AXES else None
        return None if item is None else list_of(item)
    if found := _EMBEDDING.fullmatch(text):
        return Type("embedding", shape=(int(found[1]),) if found[1] else None)
    if found := _TENSOR.fullmatch(text):
        return _tensor(found[1], found[2])
    return None


def _tensor(dtype: str | None, axes: str | None) -> Type | None:
    if dtype is not None and dtype not in NUMPY_DTYPES:
        return None
    if axes is None:
        return Type("tensor", dtype=dtype or "")
    try:
        shape = tuple(int(axis) for axis in axes.split(",") if axis.strip())
    except ValueError:
        return None
    if len(shape) > MAX_AXES or min(shape, default=0) < -1:
        return None
    return Type("tensor", dtype=dtype or "", shape=shape)


def is_json(one: Type) -> bool:
    """Whether values of this type can be answered as JSON."""
    if one.item is not None:
        return is_json(one.item)
    return one.kind not in _NOT_JSON and all(is_json(inner) for _, inner in one.fields)


def fits(one: Type, wanted: Type) -> bool:
    """Whether a value of type `one` may go where `wanted` is asked for."""
    if wanted.kind == "json":
        return is_json(one)
    if one.kind == "embedding" and wanted.kind == "tensor":
        return wanted.dtype in ("", "FP32") and _tail_fits(one.shape, wanted.shape)
    if one.kind != wanted.kind:
        return False
    if wanted.kind == "list":
        assert one.item is not None
        assert wanted.item is not None
        return fits(one.item, wanted.item)
    if wanted.kind == "record":
        return all((have := one.get(name)) is not None and fits(have, inner) for name, inner in wanted.fields)
    if wanted.kind in ("tensor", "embedding"):
        same = not one.dtype or not wanted.dtype or one.dtype == wanted.dtype
        return same and shapes_fit(one.shape, wanted.shape)
    return True


def shapes_fit(one: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> bool:
    """Whether two shapes can be of one tensor, as far as they are known; -1 is any."""
    if one is None or wanted is None:
        return True
    return len(one) == len(wanted) and all(-1 in (a, b) or a == b for a, b in zip(one, wanted, strict=True))


def _tail_fits(one: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> bool:
    """An embedding fits a vector, or a batch of one vector."""
    if wanted is None:
        return True
    if len(wanted) not in (1, 2) or (len(wanted) == 2 and wanted[0] not in (-1, 1)):
        return False
    return one is None or wanted[-1] in (-1, one[0])


def common(types: list[Type]) -> Type | None:
    """The type of a value that is one of these: theirs, or json; None where nothing holds all of them."""
    first = types[0]
    if all(fits(one, first) for one in types):
        return first
    return JSON if all(is_json(one) for one in types) else None
