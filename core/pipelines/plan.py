"""A definition that fits together: nodes in an order in which they can run, every edge resolved and typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.pipelines.definition import Definition, NodeSpec
from core.pipelines.operation import Operation
from core.pipelines.types import Type
from core.signature import TensorSpec


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value is found: an input, an item or a node by name; of a node its port; and the fields within."""

    name: str
    port: str | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """A case of a switch: for these texts, or from this number on; neither for the default."""

    when: frozenset[str]
    at_least: float | None
    body: Body


@dataclass(frozen=True, slots=True)
class Node:
    """One node, ready to run. `needs` are the nodes beside it that must have run before."""

    spec: NodeSpec
    sources: Mapping[str, Source]
    outputs: Mapping[str, Type]
    needs: frozenset[str]
    operation: Operation | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    modality: str = ""
    """Of a model's node."""
    task: str = ""
    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)
    """The input tensors of a model that takes them."""
    body: Body | None = None
    branches: tuple[Branch, ...] = ()

    @property
    def name(self) -> str:
        """As the definition calls it."""
        return self.spec.name

    def tensor_spec(self, name: str) -> tuple[str, int]:
        """Dtype and number of axes of an input tensor."""
        return self.tensors[name].dtype, len(self.tensors[name].shape)

    def bodies(self) -> list[Body]:
        """Of a map or a switch."""
        return [self.body] if self.body is not None else [branch.body for branch in self.branches]


@dataclass(frozen=True, slots=True)
class Body:
    """Nodes in an order in which they can run, and where their value is."""

    nodes: tuple[Node, ...]
    output: Source
    type: Type


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole pipeline, ready to run."""

    definition: Definition
    nodes: tuple[Node, ...]
    outputs: Mapping[str, tuple[Source, Type]]
    medium: str | None
    """The input that is the call's file or text; None where the inputs are tensors."""
    decode: bool
    """Whether the image is to be decoded once, ahead of the nodes that take it."""

    @property
    def modality(self) -> str:
        """What a call brings: image, audio, text or tensor."""
        return "tensor" if self.medium is None else self.definition.inputs[self.medium].type.kind

    def models(self) -> set[tuple[str, int | None]]:
        """Every model it calls, with the version it asks for."""
        return self.definition.models()


def every_node(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """These nodes and those in their bodies."""
    for node in nodes:
        yield node
        for body in node.bodies():
            yield from every_node(body.nodes)
