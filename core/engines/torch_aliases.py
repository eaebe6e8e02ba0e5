"""Whether a graph writes into its own weights: then one request's answer would depend on those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Value(NamedTuple):
    """Stands in an operator's arguments for a value of the graph."""

    name: str


Operation = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any], Sequence[str]]


def written_weight(operations: Iterable[Operation], weights: Iterable[str]) -> str | None:
    """The first of `weights` that an operation writes into, be it through views; None where none does.

    An operation is `(operator, args, kwargs, names of its results)`, as they run. What it writes and which of its
    results are views, an operator's schema says: pytorch aten/src/ATen/native/README.md, "Annotations".
    """
    root = {name: name for name in weights}
    for operator, args, kwargs, results in operations:
        for name, writes in _aliased(operator, args, kwargs):
            if name not in root:
                continue
            if writes:
                return root[name]
            root.update(dict.fromkeys(results, root[name]))
    return None


def _aliased(
    operator: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, bool]]:
    """The values that an operator shares memory with, and whether it writes into each."""
    schema = getattr(operator, "_schema", None)
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        given = args[place] if place < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None:
            yield from ((name, bool(argument.alias_info.is_write)) for name in names_in(given))


def names_in(template: Any) -> set[str]:
    """Every value of the graph that stands in a template of arguments."""
    if isinstance(template, Value):
        return {template.name}
    inner = template.values() if isinstance(template, dict) else template if isinstance(template, list) else ()
    return {name for value in inner for name in names_in(value)}
