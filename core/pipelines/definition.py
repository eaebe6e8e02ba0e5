"""`graph.yaml` as it was written: names, types and texts, not yet knowing whether they fit together.

docs/pipelines.md describes the format. Aliases, deep nesting and large files are refused before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from core.errors import InvalidPackage
from core.pipelines.problems import FILE, Problems, WrongPipeline, from_package_error
from core.pipelines.types import NAMES, Type, parse_type
from core.store.yaml_reader import Where, check_json, read_yaml

MAX_BYTES: Final = 256 * 1024
MAX_NODES: Final = 200
MAX_BODY_DEPTH: Final = 3
MAX_ITEMS: Final = 1000
MAX_PARALLEL: Final = 256
DEFAULT_ITEMS: Final = 100
DEFAULT_PARALLEL: Final = 32
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_TOP: Final = ("description", "inputs", "nodes", "outputs")
_INPUT: Final = ("type", "default", "description")
_MODEL: Final = ("model", "version", "input", "inputs", "parameters")
_MAP: Final = ("op", "over", "as", "max_items", "parallel", "nodes", "output")
_SWITCH: Final = ("op", "by", "cases", "default")
_BODY: Final = ("nodes", "output")
_CASE: Final = ("when", "at_least", *_BODY)
MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a caller gives. `default` is MISSING where the input must be given."""

    name: str
    where: Where
    type: Type
    default: Any = MISSING
    description: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a value comes from, as written: `detect.detections`."""

    text: str
    where: Where


@dataclass(frozen=True, slots=True)
class BodySpec:
    """The nodes inside a map or a case, and the edge that is its value."""

    nodes: Mapping[str, NodeSpec]
    output: Edge
    where: Where


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """One case of a switch: texts that it is for, or the number from which on it is; neither for the default."""

    when: tuple[str, ...]
    at_least: float | None
    body: BodySpec


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node: a model where `model` is given, otherwise the operation `op`."""

    name: str
    where: Where
    op: str = ""
    model: str = ""
    version: int | None = None
    inputs: Mapping[str, Edge] = field(default_factory=dict)
    """By port; the only one may be written as `input`, and is "" here."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    item: str = ""
    """What a map's body calls the item at hand."""
    max_items: int = DEFAULT_ITEMS
    parallel: int = DEFAULT_PARALLEL
    body: BodySpec | None = None
    cases: tuple[CaseSpec, ...] = ()

    def bodies(self) -> list[BodySpec]:
        """The body of a map, or those of a switch's cases."""
        return [case.body for case in self.cases] if self.body is None else [self.body]


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole `graph.yaml`."""

    description: str
    inputs: Mapping[str, InputSpec]
    nodes: Mapping[str, NodeSpec]
    outputs: Mapping[str, Edge]

    def models(self) -> set[tuple[str, int | None]]:
        """Every model that a node names, with the version it asks for."""
        return {(node.model, node.version) for node in all_nodes(self.nodes) if node.model}


def all_nodes(nodes: Mapping[str, NodeSpec]) -> Iterator[NodeSpec]:
    """These nodes and those in their bodies."""
    for node in nodes.values():
        yield node
        for body in node.bodies():
            yield from all_nodes(body.nodes)


def parse(text: str) -> tuple[Definition, Problems]:
    """Read a definition; what else is found wrong with it can be added. Raises WrongPipeline."""
    try:
        document = read_yaml(text, FILE, MAX_BYTES)
        if not isinstance(document.value, Mapping):
            raise InvalidPackage(f"{FILE}, line 1: it must hold `inputs`, `nodes` and `outputs`.")
        check_json(document.value, (), document)
    except InvalidPackage as error:
        raise from_package_error(error) from None
    problems = Problems(document)
    _check_texts(document.value, (), problems)
    definition = _Reader(problems).definition(document.value)
    problems.check()
    return definition, problems


def _check_texts(value: Any, where: Where, problems: Problems) -> None:
    """Refuse what YAML's escapes can write and neither a database nor JSON can hold."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_texts(key, where, problems)
            _check_texts(inner, (*where, key), problems)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_texts(inner, (*where, place), problems)
    elif isinstance(value, str) and any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        problems.add(where, "a text here holds a character that is none.")


def parsed(text: str) -> Definition:
    """See `parse`."""
    return parse(text)[0]


class _Reader:
    """Reads part by part, and goes on after a problem to find the others."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._count = 0

    def definition(self, value: Mapping[str, Any]) -> Definition:
        self._known((), value, _TOP)
        for needed in ("inputs", "nodes", "outputs"):
            if not isinstance(value.get(needed), Mapping) or not value[needed]:
                where: Where = (needed,) if needed in value else ()
                self._problems.add(where, f"`{needed}` must be there, with at least one entry by name.")
        self._problems.check()
        inputs = {
            name: found
            for name, one in self._entries(("inputs",), value["inputs"])
            if (found := self._input(name, ("inputs", name), one)) is not None
        }
        nodes = self._nodes(("nodes",), value["nodes"], 0)
        outputs = {
            name: self._edge(("outputs", name), one) for name, one in self._entries(("outputs",), value["outputs"])
        }
        return Definition(self._text(("description",), value.get("description", "")), inputs, nodes, outputs)

    def _input(self, name: str, where: Where, value: Any) -> InputSpec | None:
        said: Mapping[str, Any] = value if isinstance(value, Mapping) else {"type": value}
        self._known(where, said, _INPUT)
        written = said.get("type")
        type_ = parse_type(written) if isinstance(written, str) else None
        if type_ is None:
            self._problems.add(where, f"`{str(written)[:60]}` is no type; there are {', '.join(NAMES)}.")
            return None
        default = said.get("default", MISSING)
        return InputSpec(name, where, type_, default, self._text(where, said.get("description", "")))

    def _nodes(self, where: Where, value: Any, depth: int) -> dict[str, NodeSpec]:
        if depth > MAX_BODY_DEPTH:
            self._problems.add(where, f"maps and switches may be nested {MAX_BODY_DEPTH} deep.")
            return {}
        nodes = {}
        for name, one in self._entries(where, value):
            self._count += 1
            if self._count == MAX_NODES + 1:
                self._problems.add((*where, name), f"a pipeline may have {MAX_NODES} nodes.")
            node = self._node(name, (*where, name), one, depth) if self._count <= MAX_NODES else None
            if node is not None:
                nodes[name] = node
        return nodes

    def _node(self, name: str, where: Where, value: Any, depth: int) -> NodeSpec | None:
        if not isinstance(value, Mapping) or ("op" in value) == ("model" in value):
            self._problems.add(where, "a node needs either `model` or `op`.")
            return None
        if "model" in value:
            return self._model(name, where, value)
        op = self._text((*where, "op"), value["op"])
        if op == "map":
            return self._map(name, where, value, depth)
        if op == "switch":
            return self._switch(name, where, value, depth)
        options = {key: one for key, one in value.items() if key not in ("op", "input", "inputs")}
        return NodeSpec(name, where, op=op, inputs=self._inputs(where, value), options=options)

    def _model(self, name: str, where: Where, value: Mapping[str, Any]) -> NodeSpec:
        self._known(where, value, _MODEL)
        version = value.get("version")
        if version is not None and (type(version) is not int or not 1 <= version < 2**31):
            self._problems.add((*where, "version"), "`version` must be a whole number from 1.")
            version = None
        parameters = value.get("parameters", {})
        if not isinstance(parameters, Mapping):
            self._problems.add((*where, "parameters"), "`parameters` must hold values by name.")
            parameters = {}
        model = self._text((*where, "model"), value["model"])
        if not model:
            self._problems.add((*where, "model"), "`model` must name one.")
        inputs = self._inputs(where, value)
        return NodeSpec(name, where, model=model, version=version, inputs=inputs, parameters=parameters)

    def _map(self, name: str, where: Where, value: Mapping[str, Any], depth: int) -> NodeSpec:
        self._known(where, value, _MAP)
        item = self._text((*where, "as"), value.get("as", "item"))
        if not _NAME.fullmatch(item):
            self._problems.add((*where, "as"), _no_name(item))
        return NodeSpec(
            name,
            where,
            op="map",
            inputs={"over": self._edge((*where, "over"), value.get("over"))},
            item=item,
            max_items=self._count_of((*where, "max_items"), value.get("max_items", DEFAULT_ITEMS), MAX_ITEMS),
            parallel=self._count_of((*where, "parallel"), value.get("parallel", DEFAULT_PARALLEL), MAX_PARALLEL),
            body=self._body(where, value, depth),
        )

    def _switch(self, name: str, where: Where, value: Mapping[str, Any], depth: int) -> NodeSpec:
        self._known(where, value, _SWITCH)
        said = value.get("cases")
        if not isinstance(said, list) or not said:
            self._problems.add((*where, "cases"), "a switch needs a list of `cases`.")
            said = []
        cases = [self._case((*where, "cases", i), one, depth) for i, one in enumerate(said)]
        if "default" in value:
            place = (*where, "default")
            default = value["default"]
            self._known(place, default if isinstance(default, Mapping) else {}, _BODY)
            cases.append(CaseSpec((), None, self._body(place, default, depth)))
        else:
            self._problems.add(where, "a switch needs a `default`, for whatever fits no case.")
        by = self._edge((*where, "by"), value.get("by"))
        return NodeSpec(name, where, op="switch", inputs={"by": by}, cases=tuple(cases))

    def _case(self, where: Where, value: Any, depth: int) -> CaseSpec:
        said: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        self._known(where, said, _CASE)
        when = said.get("when", [])
        texts = [when] if isinstance(when, str) else when
        at_least = said.get("at_least")
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            self._problems.add(
                (*where, "when"), "`when` must be a text or a list of them; put odd ones in quotes."
            )
            texts = []
        elif at_least is not None and (isinstance(at_least, bool) or not isinstance(at_least, int | float)):
            self._problems.add((*where, "at_least"), "`at_least` must be a number.")
            at_least = None
        elif bool(texts) == (at_least is not None):
            self._problems.add(where, "a case needs either `when` or `at_least`.")
        return CaseSpec(tuple(texts), at_least, self._body(where, said, depth))

    def _body(self, where: Where, value: Any, depth: int) -> BodySpec:
        said: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        nodes = self._nodes((*where, "nodes"), said.get("nodes", {}), depth + 1)
        return BodySpec(nodes, self._edge((*where, "output"), said.get("output")), where)

    def _inputs(self, where: Where, value: Mapping[str, Any]) -> dict[str, Edge]:
        if "input" in value:
            if "inputs" in value:
                self._problems.add(where, "give either `input` or `inputs`.")
            return {"": self._edge((*where, "input"), value["input"])}
        said = value.get("inputs", {})
        if not isinstance(said, Mapping):
            self._problems.add((*where, "inputs"), "`inputs` must name the value of each, such as `image: photo`.")
            return {}
        return {port: self._edge((*where, "inputs", port), one) for port, one in said.items()}

    def _edge(self, where: Where, value: Any) -> Edge:
        if isinstance(value, str) and value:
            return Edge(value, where)
        self._problems.add(where, f"`{where[-1]}` must name a value, such as `detect.detections`.")
        return Edge("", where)

    def _entries(self, where: Where, value: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(value, Mapping):
            self._problems.add(where, "there must be entries by name here.")
            return
        for name, one in value.items():
            if _NAME.fullmatch(name):
                yield name, one
            else:
                self._problems.add((*where, name), _no_name(name))

    def _known(self, where: Where, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in value:
            if key not in known:
                self._problems.add((*where, key), f"`{key[:60]}` is not known here; there are {', '.join(known)}.")

    def _text(self, where: Where, value: Any) -> str:
        if not isinstance(value, str) or len(value) > 4000:
            self._problems.add(where, "this must be text of at most 4000 characters.")
            return ""
        return value

    def _count_of(self, where: Where, value: Any, most: int) -> int:
        if type(value) is not int or not 1 <= value <= most:
            self._problems.add(where, f"this must be a whole number from 1 to {most}.")
            return 1
        return value


def _no_name(name: str) -> str:
    return f"`{name[:60]}` is no name: begin with a letter, then letters, digits, _ and -, at most 63."


__all__ = ["BodySpec", "CaseSpec", "Definition", "Edge", "InputSpec", "NodeSpec", "WrongPipeline", "parse"]
