"""Whether one node's inputs and options fit its model or its operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.pipelines.definition import NodeSpec
from core.pipelines.operation import Misfit, Operation
from core.pipelines.operations import OPERATION_NAMES, OPERATIONS
from core.pipelines.plan import Node, Source
from core.pipelines.ports import ANSWER, ModelFacts, model_inputs, model_outputs
from core.pipelines.problems import Problems, listed
from core.pipelines.types import Type, fits

Given = Mapping[str, tuple[Source, Type]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The output ports of a node."""

    types: Mapping[str, Type]

    def choose(self, path: list[str]) -> str | None:
        """The port that a path begins with, or the only one there is; None where a choice must be made."""
        if path and path[0] in self.types:
            return path[0]
        others = [name for name in self.types if name != ANSWER] or list(self.types)
        return others[0] if len(others) == 1 else None


def check_model(
    spec: NodeSpec, given: Given, needs: frozenset[str], facts: ModelFacts | str, problems: Problems
) -> Node | None:
    """A model's node. Notes what is wrong, and answers None then."""
    if isinstance(facts, str):
        problems.add((*spec.where, "model"), facts)
        return None
    ports = model_inputs(facts)
    named = _by_port(spec, given, list(ports), problems)
    if named is None or not _fit(spec, named, ports, frozenset(), problems):
        return None
    sources = {port: source for port, (source, _) in named.items()}
    tensors = {one.name: one for one in facts.signature.inputs}
    outputs = model_outputs(facts)
    return Node(spec, sources, outputs, needs, modality=facts.modality, task=facts.task, tensors=tensors)


def check_operation(spec: NodeSpec, given: Given, needs: frozenset[str], problems: Problems) -> Node | None:
    """An operation's node. Notes what is wrong, and answers None then."""
    operation = OPERATIONS.get(spec.op)
    if operation is None:
        there = listed(OPERATION_NAMES)
        problems.add((*spec.where, "op"), f"there is no operation `{spec.op[:60]}`; there are {there}.")
        return None
    options = _options(spec, operation, problems)
    named: Given | None = given
    if not operation.variadic:
        named = _by_port(spec, given, list(operation.ports), problems)
        if named is not None and not _fit(spec, named, operation.ports, operation.optional, problems):
            named = None
    elif "" in given:
        problems.add(spec.where, f"`{spec.op}` takes `inputs` by names of your choice.")
        named = None
    if options is None or named is None:
        return None
    try:
        outputs = operation.outputs({port: type_ for port, (_, type_) in named.items()}, options)
    except Misfit as error:
        problems.add(_place(spec, error.at), error.message)
        return None
    sources = {port: source for port, (source, _) in named.items()}
    return Node(spec, sources, outputs, needs, operation=operation, options=options)


def _by_port(spec: NodeSpec, given: Given, ports: list[str], problems: Problems) -> Given | None:
    """Give `input` the name of the port that it stands for."""
    if "" not in given:
        return given
    if len(ports) != 1:
        there = listed(ports)
        problems.add(spec.where, f"give `inputs` by name: {there}.")
        return None
    return {ports[0]: given[""]}


def _fit(
    spec: NodeSpec,
    given: Given,
    ports: Mapping[str, Type | None],
    optional: frozenset[str],
    problems: Problems,
) -> bool:
    good = True
    for port, (_, have) in given.items():
        edge = spec.inputs.get(port) or spec.inputs[""]
        wanted = ports.get(port)
        if port not in ports:
            there = listed(ports)
            problems.add(edge.where, f"there is no input `{port[:60]}`; there are: {there}.")
            good = False
        elif wanted is not None and not fits(have, wanted):
            problems.add(
                edge.where, f"`{port}` takes {wanted}, and `{edge.text[:60]}` is {have}{_hint(have, wanted)}."
            )
            good = False
    for port in ports:
        if port not in given and port not in optional:
            problems.add(spec.where, f"its input `{port}` is missing.")
            good = False
    return good


def _hint(have: Type, wanted: Type) -> str:
    if have.item is not None and fits(have.item, wanted):
        return "; use a map"
    return "; take it out with `select`" if have.kind == "json" else ""


def _options(spec: NodeSpec, operation: Operation, problems: Problems) -> dict[str, Any] | None:
    good = True
    options = {name: option.default for name, option in operation.options.items()}
    for name, value in spec.options.items():
        option = operation.options.get(name)
        problem = option.problem(value) if option is not None else None
        if option is None:
            there = listed(["input", "inputs", *operation.options])
            problems.add((*spec.where, name), f"`{spec.op}` has no `{name[:60]}`; there are {there}.")
            good = False
        elif problem is not None:
            problems.add((*spec.where, name), f"`{name}` {problem}.")
            good = False
        options[name] = value
    for name, option in operation.options.items():
        if option.needed and name not in spec.options:
            problems.add(spec.where, f"`{spec.op}` needs `{name}`.")
            good = False
    return options if good else None


def _place(spec: NodeSpec, at: str) -> tuple[str | int, ...]:
    """Where an option or an input is written."""
    if at in spec.inputs:
        return spec.inputs[at].where
    if "" in spec.inputs and at in ("items", "value", "image"):
        return spec.inputs[""].where
    return (*spec.where, at) if at in spec.options else spec.where
