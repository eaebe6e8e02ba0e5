"""Reading an ONNX file without running it. Only the validator's process may import this: it loads `onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from core.errors import InvalidPackage
from core.store.paths import shown

# Domains whose operators ONNX Runtime brings along. Contrib operators: onnxruntime/docs/ContribOperators.md.
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_ENGINE_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "ai.onnx.preview"})


def parse(path: Path) -> Any:
    """The file as a `ModelProto`, external data not loaded. Raises InvalidPackage."""
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidPackage(
            "The file cannot be parsed as ONNX: it is cut short or damaged; export or copy it again."
        ) from error
    if not model.HasField("graph") or not model.graph.node:
        raise InvalidPackage("The model's graph has no nodes; export it again.")
    return model


def check_structure(path: Path) -> None:
    """onnx's own checker on the file and its external data. Raises InvalidPackage with what it says."""
    try:
        onnx.checker.check_model(str(path))
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidPackage(f"The onnx checker refuses the model: {error}; export it again.") from error


def unsupported_operators(model: Any) -> list[str]:
    """Operators, as `domain::Name`, that the engine cannot know, each once and in order."""
    local = {(function.domain, function.name) for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    used = dict.fromkeys((node.domain, node.op_type) for node in _nodes(model))
    return [_full_name(*key) for key in used if key not in local and not _is_known(*key, versions)]


def tensors(model: Any) -> Iterator[Any]:
    """Every `TensorProto` of the model: weights, constants, also in subgraphs, functions and training parts."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()),):
        yield from (sparse.values, sparse.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)


def _nodes(model: Any) -> Iterator[Any]:
    for holder in _holders(model):
        yield from holder.node


def _graphs(model: Any) -> Iterator[Any]:
    return (holder for holder in _holders(model) if isinstance(holder, onnx.GraphProto))


def _holders(model: Any) -> Iterator[Any]:
    """Every graph and function body, subgraphs included; a stack of our own instead of recursion."""
    waiting = [model.graph, *model.functions]
    for training in model.training_info:
        waiting.extend((training.initialization, training.algorithm))
    while waiting:
        holder = waiting.pop()
        yield holder
        for node in holder.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _is_known(domain: str, name: str, versions: dict[str, int]) -> bool:
    if domain in _ENGINE_DOMAINS:
        return True
    if domain not in _STANDARD_DOMAINS:
        return False
    plain = "" if domain == "ai.onnx" else domain
    version = versions.get(domain, versions.get(plain, 0))
    # An opset newer than this onnx is the engine's to judge.
    version = max(1, min(version, onnx.defs.onnx_opset_version() if not plain else version))
    return bool(onnx.defs.has(name, version, plain)) or name in _EXPERIMENTAL


# Operators that old exporters wrote and the engine still runs, though the standard has dropped them.
_EXPERIMENTAL = frozenset({"ATen", "Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus",
                           "ScaledTanh", "ThresholdedRelu"})  # fmt: skip


def _full_name(domain: str, name: str) -> str:
    return shown(f"{domain}::{name}" if domain else name)
