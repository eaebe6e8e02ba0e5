from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from core.errors import InvalidPackage
from core.store.paths import shown

_MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 250_000
_MAX_INTEGER: Final = 2**63
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML document's value, and the line (from 1) on which each part of it begins."""

    value: Any
    lines: dict[Where, int]
    name: str

    def line(self, where: Where) -> int | None:
        """The line of a part, or of the nearest part around it that has one."""
        return next((self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines), None)

    def place(self, where: Where) -> str:
        """How a message names a part: `model.yaml, line 3: preprocess.resize`."""
        line = self.line(where)
        return f"{self.name}{'' if line is None else f', line {line}'}: {dotted(where)}"


def read_yaml(text: str, name: str, max_bytes: int = _MAX_BYTES) -> Document:
    """Parse one small document without anchors. Raises InvalidPackage, which names the file as `name`."""
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise InvalidPackage(f"{name} is larger than {max_bytes} bytes; put long lists into files of their own.")
    try:
        _check_events(text, name)
        node = yaml.compose(text, Loader=_LOADER)
        lines: dict[Where, int] = dict(_lines(node, (), name)) if node is not None else {}
        return Document(yaml.load(text, Loader=_LOADER), lines, name)  # noqa: S506  # nosec B506  # a safe loader
    except yaml.YAMLError as error:
        raise InvalidPackage(f"{name} is not YAML that can be read here{_why(error)}.") from error
    except (ValueError, OverflowError, TypeError, AttributeError, LookupError) as error:
        # PyYAML's constructors let these out for values such as 2024-99-99.
        raise InvalidPackage(f"{name} holds a value that cannot be read; put odd values in quotes.") from error


def check_json(value: Any, where: Where, document: Document) -> None:
    """Refuse what YAML can say and JSON cannot: dates, sets, NaN, keys that are not text, huge integers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InvalidPackage(f"{document.place(where)} has a key that is not text; put it in quotes.")
            check_json(inner, (*where, key), document)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            check_json(inner, (*where, index), document)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidPackage(f"{document.place(where)} must be a finite number.")
    elif isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise InvalidPackage(f"{document.place(where)} is too large a number.")
    elif not isinstance(value, str | bool | int | float | None):
        raise InvalidPackage(f"{document.place(where)} must be text, a number, true, false, a list or a mapping.")


def _check_events(text: str, name: str) -> None:
    """Look at the document piece by piece, so that nothing is built before it is known to be small and flat."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InvalidPackage(f"{name}, line {line}: anchors and aliases (&, *) are not taken; write it out.")
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH or count > _MAX_NODES:
            raise InvalidPackage(f"{name}, line {line}: nested too deep or too long.")


def _lines(node: yaml.Node, where: Where, name: str) -> Iterator[tuple[Where, int]]:
    yield where, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, inner in enumerate(node.value):
            yield from _lines(inner, (*where, index), name)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, inner in node.value:
            if key.value in seen if isinstance(key.value, str) else False:
                line = key.start_mark.line + 1
                raise InvalidPackage(f"{name}, line {line}: {shown(key.value)} is there twice; keep one.")
            label = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            seen.add(label)
            yield from _lines(inner, (*where, label), name)


def dotted(where: Where) -> str:
    """A part's name: `nodes.crop.inputs[0]`."""
    if not where:
        return "the document"
    first, *rest = where
    return str(first)[:80] + "".join(f"[{p}]" if isinstance(p, int) else f".{p[:80]}" for p in rest)


def _why(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    line = f" (line {mark.line + 1})" if mark is not None else ""
    return f"{line}: {str(problem)[:200]}" if problem else line
