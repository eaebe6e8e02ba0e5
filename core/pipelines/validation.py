"""Whether a definition fits together: names, types, shapes, cycles, unused nodes, fan-out; all that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Final

from core.pipelines.definition import MISSING, BodySpec, CaseSpec, Definition, Edge, NodeSpec, parse
from core.pipelines.node_check import Outputs, check_model, check_operation
from core.pipelines.plan import Body, Branch, Node, Plan, Source, every_node
from core.pipelines.ports import ANSWER, ModelFacts
from core.pipelines.problems import Problems, listed
from core.pipelines.types import NUMBER, TEXT, Type, common, is_json, list_of
from core.pipelines.values import problem_with
from core.store.yaml_reader import Where

MAX_CALLS: Final = 10_000
MAX_STEPS: Final = 100_000
NODE_TIMINGS: Final = "node_timings"
"""The parameter that asks for per-node timings, and the key of the answer that holds them."""
Facts = Mapping[tuple[str, int | None], ModelFacts | str]
"""By model and version asked for: what is known of it, or why it cannot be used."""
Scope = Mapping[str, Type | Outputs | None]
"""What a name stands for: a value's type, a node's outputs, or None for what was wrong already."""
_MEDIA: Final = ("image", "audio")


def validate(text: str, facts: Facts) -> Plan:
    """Read and check a definition. Raises WrongPipeline with every problem that was found."""
    definition, problems = parse(text)
    return check(definition, problems, facts)


def check(definition: Definition, problems: Problems, facts: Facts) -> Plan:
    """See `validate`."""
    return _Checker(definition, problems, facts).plan()


class _Checker:
    def __init__(self, definition: Definition, problems: Problems, facts: Facts) -> None:
        self._definition = definition
        self._problems = problems
        self._facts = facts
        self._unused: list[tuple[Where, str]] = []
        """Told only where nothing else is wrong: what is wrong leaves other things unused."""

    def plan(self) -> Plan:
        definition = self._definition
        medium = self._check_inputs()
        inputs: Scope = {name: one.type for name, one in definition.inputs.items()}
        nodes, scope = self._nodes(definition.nodes, inputs)
        outputs = {}
        for name, edge in definition.outputs.items():
            found = self._resolve(edge, scope)
            if name == NODE_TIMINGS:
                self._problems.add(edge.where, "this name is kept for timings; choose another.")
            if found is not None and not is_json(found[1]):
                self._problems.add(edge.where, f"{found[1]} cannot be answered; answer what is found in it.")
            if found is not None:
                outputs[name] = found
        self._check_unused(definition.nodes, definition.outputs.values())
        self._check_unused_inputs()
        self._check_fan_out(definition.nodes)
        self._problems.check()
        for where, message in self._unused:
            self._problems.add(where, message)
        self._problems.check()
        return Plan(definition, nodes, outputs, medium, _must_decode(definition, nodes, medium))

    def _check_inputs(self) -> str | None:
        """The input that is the call's file or text; None where they are tensors."""
        inputs = self._definition.inputs
        media = [one for one in inputs.values() if one.type.kind in _MEDIA]
        tensors = [one for one in inputs.values() if one.type.kind == "tensor"]
        texts = [one for one in inputs.values() if one.type == TEXT and one.default is MISSING]
        for one in media[1:]:
            self._problems.add(one.where, "a pipeline takes one image or audio; the other inputs are parameters.")
        if tensors and media:
            self._problems.add(tensors[0].where, "a pipeline takes an image, audio or text, or tensors, not both.")
        if not media and not tensors and not texts:
            self._problems.add(("inputs",), "a pipeline takes an image, audio or text, or tensors.")
        for one in tensors:
            if not one.type.dtype or one.type.shape is None:
                self._problems.add(one.where, "a tensor that a caller brings needs a dtype and a shape.")
        main = media[0] if media else None if tensors else texts[0] if texts else None
        for one in inputs.values():
            if one.name == NODE_TIMINGS:
                self._problems.add(one.where, "this name is kept for timings; choose another.")
            if one.default is MISSING:
                continue
            problem = problem_with(one.default, one.type)
            if one.type.kind in (*_MEDIA, "tensor"):
                self._problems.add((*one.where, "default"), f"{one.type} has no default.")
            elif problem is not None:
                self._problems.add((*one.where, "default"), f"it {problem}.")
        return main.name if main is not None else None

    def _nodes(self, specs: Mapping[str, NodeSpec], outer: Scope) -> tuple[tuple[Node, ...], Scope]:
        """Check nodes in an order in which they can run; answers them, and all that is known after them."""
        for name, spec in specs.items():
            if name in outer:
                self._problems.add(spec.where, f"the name `{name}` is taken already; choose another.")
        needs = {name: {used for used in _names_used(spec) if used in specs} for name, spec in specs.items()}
        try:
            order = list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            circle: list[str] = error.args[1]
            way = " -> ".join(circle[:12])
            self._problems.add(specs[circle[0]].where, f"a cycle: each needs the one before it, {way}.")
            return (), {**outer, **dict.fromkeys(specs)}
        scope = {**outer, **dict.fromkeys(specs)}
        nodes = []
        for name in order:
            node = self._node(specs[name], scope, frozenset(needs[name]))
            scope[name] = None if node is None else Outputs(node.outputs)
            if node is not None:
                nodes.append(node)
        return tuple(nodes), scope

    def _node(self, spec: NodeSpec, scope: Scope, needs: frozenset[str]) -> Node | None:
        if spec.op == "map":
            return self._map(spec, scope, needs)
        if spec.op == "switch":
            return self._switch(spec, scope, needs)
        found = {port: self._resolve(edge, scope) for port, edge in spec.inputs.items()}
        if any(one is None for one in found.values()):
            return None
        given = {port: one for port, one in found.items() if one is not None}
        if spec.model:
            facts = self._facts[spec.model, spec.version]
            return check_model(spec, given, needs, facts, self._problems)
        return check_operation(spec, given, needs, self._problems)

    def _map(self, spec: NodeSpec, scope: Scope, needs: frozenset[str]) -> Node | None:
        found = self._resolve(spec.inputs["over"], scope)
        if found is not None and found[1].item is None:
            self._problems.add(spec.inputs["over"].where, f"a map goes over a list, not over {found[1]}.")
        if spec.item in scope:
            self._problems.add(spec.where, f"the name `{spec.item}` is taken already; choose another with `as`.")
        assert spec.body is not None
        item = None if found is None else found[1].item
        body = self._body(spec.body, {**scope, spec.item: item})
        if body is None or found is None:
            return None
        return Node(spec, {"over": found[0]}, {"items": list_of(body.type)}, needs, body=body)

    def _switch(self, spec: NodeSpec, scope: Scope, needs: frozenset[str]) -> Node | None:
        found = self._resolve(spec.inputs["by"], scope)
        if found is not None and found[1] not in (TEXT, NUMBER):
            self._problems.add(spec.inputs["by"].where, f"a switch goes by a text or a number, not by {found[1]}.")
            found = None
        branches = []
        for case in spec.cases:
            self._check_case(case, None if found is None else found[1])
            body = self._body(case.body, scope)
            if body is not None:
                branches.append(Branch(frozenset(case.when), case.at_least, body))
        if found is None or not branches or len(branches) < len(spec.cases):
            return None
        type_ = common([branch.body.type for branch in branches])
        if type_ is None:
            said = listed((str(branch.body.type) for branch in branches), 4)
            self._problems.add(spec.where, f"its cases answer types that do not go together: {said}.")
            return None
        return Node(spec, {"by": found[0]}, {"value": type_}, needs, branches=tuple(branches))

    def _check_case(self, case: CaseSpec, by: Type | None) -> None:
        if by == TEXT and case.at_least is not None:
            self._problems.add(case.body.where, "this switch goes by a text: use `when`.")
        if by == NUMBER and case.when:
            self._problems.add(case.body.where, "this switch goes by a number: use `at_least`.")

    def _body(self, spec: BodySpec, scope: Scope) -> Body | None:
        nodes, inner = self._nodes(spec.nodes, scope)
        found = self._resolve(spec.output, inner)
        self._check_unused(spec.nodes, [spec.output])
        return None if found is None else Body(nodes, *found)

    def _resolve(self, edge: Edge, scope: Scope) -> tuple[Source, Type] | None:
        name, *path = edge.text.split(".")
        if not edge.text:
            return None
        if name not in scope:
            there = listed(scope)
            self._problems.add(edge.where, f"there is no `{name[:60]}` here; there is {there}.")
            return None
        entry = scope[name]
        if entry is None:
            return None  # told already
        port = None
        if isinstance(entry, Outputs):
            port = entry.choose(path)
            if port is None:
                ports = listed(f"{name}.{one}" for one in entry.types)
                self._problems.add(edge.where, f"`{edge.text[:60]}` is no output; there are {ports}.")
                return None
            path = path[1:] if path and path[0] == port else path
            entry = entry.types[port]
        return self._within(edge, Source(name, port, tuple(path)), entry)

    def _within(self, edge: Edge, source: Source, type_: Type) -> tuple[Source, Type] | None:
        for field in source.path:
            inner = type_.get(field)
            if inner is None:
                hint = "; take it out with `select`" if type_.kind in ("json", "list") else ""
                self._problems.add(edge.where, f"{type_} has no `{field[:60]}`{hint}.")
                return None
            type_ = inner
        return source, type_

    def _check_unused(self, specs: Mapping[str, NodeSpec], outputs: Iterable[Edge]) -> None:
        """Every node must lead to an output; what does not would run for nothing, or is a slip."""
        waiting = [_head(edge) for edge in outputs]
        used: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in specs and name not in used:
                used.add(name)
                waiting += _names_used(specs[name])
        for name, spec in specs.items():
            if name not in used:
                self._unused.append((spec.where, "nothing uses this node; name it in `outputs`, or take it out."))

    def _check_unused_inputs(self) -> None:
        nodes = self._definition.nodes.values()
        used = {name for spec in nodes for name in _names_used(spec)}
        used |= {_head(edge) for edge in self._definition.outputs.values()}
        for name, one in self._definition.inputs.items():
            if name not in used:
                self._unused.append((one.where, "nothing uses this input; take it out."))

    def _check_fan_out(self, specs: Mapping[str, NodeSpec]) -> None:
        calls = steps = 0
        for spec in specs.values():
            more = _cost(spec)
            calls, steps = calls + more[0], steps + more[1]
            if calls > MAX_CALLS or steps > MAX_STEPS:
                what = f"call models {calls:,} times" if calls > MAX_CALLS else f"run {steps:,} nodes"
                most = MAX_CALLS if calls > MAX_CALLS else MAX_STEPS
                self._problems.add(spec.where, f"one request could {what}; at most {most:,}: lower `max_items`.")
                return


def _head(edge: Edge) -> str:
    return edge.text.split(".", 1)[0]


def _names_used(spec: NodeSpec) -> Iterator[str]:
    """The names that a node's edges begin with, those in its bodies among them."""
    for edge in spec.inputs.values():
        yield _head(edge)
    for body in spec.bodies():
        yield _head(body.output)
        for inner in body.nodes.values():
            yield from _names_used(inner)


def _cost(spec: NodeSpec) -> tuple[int, int]:
    """How many models and how many nodes a node can run at most."""
    bodies = [_sum(_cost(inner) for inner in body.nodes.values()) for body in spec.bodies()]
    if spec.op == "map":
        calls, steps = bodies[0]
        return calls * spec.max_items, 1 + steps * spec.max_items
    if spec.op == "switch":
        return max((calls for calls, _ in bodies), default=0), 1 + max((steps for _, steps in bodies), default=0)
    return int(bool(spec.model)), 1


def _sum(costs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    listed = list(costs)
    return sum(calls for calls, _ in listed), sum(steps for _, steps in listed)


def _must_decode(definition: Definition, nodes: tuple[Node, ...], medium: str | None) -> bool:
    """Whether several take the image, or one that needs its pixels; a single model decodes as suits it."""
    if medium is None or definition.inputs[medium].type.kind != "image":
        return False
    takers = [node for node in every_node(nodes) for one in node.sources.values() if one.name == medium]
    return len(takers) > 1 or any(node.operation is not None or node not in nodes for node in takers)


__all__ = ["ANSWER", "NODE_TIMINGS", "Facts", "check", "validate"]
