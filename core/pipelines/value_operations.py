"""Operations on labels, detections, numbers and text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from core.errors import InvalidInput
from core.pipelines.definition import MISSING
from core.pipelines.operation import Misfit, Operation, Option
from core.pipelines.types import (
    BOOLEAN,
    JSON,
    NUMBER,
    TEXT,
    Type,
    common,
    is_json,
    list_of,
    parse_type,
    record,
)
from core.pipelines.values import problem_with

MAX_TEXT: Final = 1 << 20
_PLACE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z][\w-]*)(?::(\.\d{1,2}f|d))?\}|[{}]")


class Constant(Operation):
    """A value that the definition holds."""

    options: ClassVar[Mapping[str, Option]] = {"value": Option("any", needed=True), "type": Option("text")}

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        if options["type"] is None:
            return {"value": type_of(options["value"])}
        type_ = parse_type(options["type"])
        if type_ is None or not is_json(type_):
            raise Misfit("no constant can be of this type.", "type")
        problem = problem_with(options["value"], type_)
        if problem is not None:
            raise Misfit(f"it {problem}.", "value")
        return {"value": type_}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        return {"value": options["value"]}


class Select(Operation):
    """One part of a value: `path` is made of fields and places, such as `0.label`.

    `default` is taken where a list is too short or json has no such part; without one, that is an error.
    """

    ports: ClassVar[Mapping[str, Type | None]] = {"value": None}
    options: ClassVar[Mapping[str, Option]] = {
        "path": Option("text", needed=True),
        "type": Option("text"),
        "default": Option("any", MISSING),
    }

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        found = inputs["value"]
        for step in _steps(options["path"]):
            found = _step_type(found, step)
        if options["type"] is not None:
            asked = parse_type(options["type"])
            if asked is None or found.kind not in ("json", asked.kind):
                raise Misfit(f"the value there is {found}, not {options['type']}.", "type")
            found = asked
        default = options["default"]
        if default is not MISSING and (problem := problem_with(default, found)) is not None:
            raise Misfit(f"it {problem}.", "default")
        return {"value": found}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        value = inputs["value"]
        for step in _steps(options["path"]):
            try:
                value = value[int(step)] if isinstance(value, list) else value[step]
            except (LookupError, TypeError, ValueError):
                if options["default"] is MISSING:
                    raise InvalidInput(f"there is nothing at {step!r} of {options['path']!r}.") from None
                return {"value": options["default"]}
        if options["type"] is not None:
            type_ = parse_type(options["type"])
            assert type_ is not None
            if (problem := problem_with(value, type_)) is not None:
                raise InvalidInput(f"the value at {options['path']!r} {problem}.")
        return {"value": value}


class Threshold(Operation):
    """Those items of a list whose score is high enough, and of the labels that are asked for."""

    ports: ClassVar[Mapping[str, Type | None]] = {"items": None, "at_least": NUMBER}
    optional: ClassVar[frozenset[str]] = frozenset({"at_least"})
    options: ClassVar[Mapping[str, Option]] = {"at_least": Option("number"), "labels": Option("texts")}

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        needed = ["score"] if "at_least" in inputs or options["at_least"] is not None else []
        needed += ["label"] if options["labels"] is not None else []
        if not needed:
            raise Misfit("give `at_least`, `labels` or both.")
        for name in needed:
            _field_of_items(inputs["items"], name)
        return {"items": inputs["items"]}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        at_least, labels = inputs.get("at_least", options["at_least"]), options["labels"]
        kept = inputs["items"]
        if at_least is not None:
            kept = [item for item in kept if item["score"] is not None and item["score"] >= at_least]
        if labels is not None:
            kept = [item for item in kept if item["label"] in labels]
        return {"items": kept}


class TopK(Operation):
    """The `k` items of the highest score, best first; equals keep their order."""

    ports: ClassVar[Mapping[str, Type | None]] = {"items": None}
    options: ClassVar[Mapping[str, Option]] = {"k": Option("integer", None, 1, 100_000, needed=True)}

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        items = inputs["items"]
        if items.item != NUMBER:
            _field_of_items(items, "score")
        return {"items": items}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        return {"items": sorted(inputs["items"], key=_score, reverse=True)[: options["k"]]}


class Merge(Operation):
    """One record of all inputs, by their names."""

    variadic: ClassVar[bool] = True

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        if not inputs:
            raise Misfit("it needs `inputs` to merge.")
        return {"value": record(inputs)}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        return {"value": dict(inputs)}


class Concat(Operation):
    """One list of several, in the order in which they are named."""

    variadic: ClassVar[bool] = True

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        items = []
        for name, one in inputs.items():
            if one.item is None:
                raise Misfit(f"it takes lists, not {one}.", name)
            items.append(one.item)
        one_type = common(items) if items else None
        if one_type is None:
            raise Misfit("it needs lists whose items fit into one.")
        return {"items": list_of(one_type)}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        return {"items": [item for items in inputs.values() for item in items]}


class Join(Operation):
    """One text of a list of texts, with `separator` between them."""

    ports: ClassVar[Mapping[str, Type | None]] = {"items": list_of(TEXT)}
    options: ClassVar[Mapping[str, Option]] = {"separator": Option("text", "\n")}

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        return {"text": TEXT}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""
        return {"text": _capped(options["separator"].join(inputs["items"]))}


class Text(Operation):
    """A text with the inputs put into `{their places}`: `{score:.2f}` rounds, `{{` is a brace."""

    variadic: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Option]] = {"template": Option("text", needed=True)}

    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """See Operation."""
        used = set()
        for found in _PLACE.finditer(options["template"]):
            name = found[1]
            if found[0] in "{}":
                raise Misfit("a brace stands alone; write {{ or }} for the sign itself.", "template")
            if name is None:
                continue
            if name not in inputs:
                raise Misfit(f"there is no input `{name}`.", "template")
            if found[2] is not None and inputs[name] != NUMBER:
                raise Misfit(f"`{name}` is {inputs[name]}, and only numbers are rounded.", "template")
            used.add(name)
        for name, type_ in inputs.items():
            if type_ not in (TEXT, NUMBER, BOOLEAN):
                raise Misfit(f"a template takes text and numbers, not {type_}.", name)
            if name not in used:
                raise Misfit("the template has no place for it.", name)
        return {"text": TEXT}

    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """See Operation."""

        def fill(found: re.Match[str]) -> str:
            if found[1] is None:
                return found[0][0]
            value = inputs[found[1]]
            if found[2] is None or value is None:
                return str(value)
            return format(round(value) if found[2] == "d" else float(value), found[2])

        return {"text": _capped(_PLACE.sub(fill, options["template"]))}


def type_of(value: Any) -> Type:
    """The type of a value written in a definition."""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, str):
        return TEXT
    if isinstance(value, int | float):
        return NUMBER
    if isinstance(value, list) and value:
        items = [type_of(one) for one in value]
        if all(one == items[0] for one in items):
            return list_of(items[0])
    return JSON


def _steps(path: str) -> list[str]:
    return path.split(".")


def _step_type(found: Type, step: str) -> Type:
    if found.kind == "json":
        return JSON
    if found.item is not None:
        if not step.isascii() or not step.isdigit() or len(step) > 9:
            raise Misfit(f"`{step[:60]}` is no place in a list; they are counted from 0.", "path")
        return found.item
    inner = found.get(step)
    if inner is None:
        raise Misfit(f"{found} has no `{step[:60]}`.", "path")
    return inner


def _field_of_items(items: Type, name: str) -> None:
    if items.item is None or items.item.get(name) is None:
        raise Misfit(f"it takes a list of items that have a {name}, not {items}.", "items")


def _score(item: Any) -> float:
    score = item["score"] if isinstance(item, Mapping) else item
    return float("-inf") if score is None else float(score)


def _capped(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"the text is longer than {MAX_TEXT} characters.")
    return text
