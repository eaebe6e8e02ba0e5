"""ONNX to ONNX: the simplified graph, and 16-bit floats."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed
from core.optimiser.converted import Converted, Work, missing, versions_of

_MODEL: Final = "model.onnx"
_WEIGHTS: Final = "model.onnx.data"
_MAX_PROTO_BYTES: Final = 2_000_000_000
"""protobuf holds no message of 2 GiB or more: larger weights go into a file beside the model."""


def simplify(work: Work) -> Converted:
    """Fold constants, merge batch norms, drop idle nodes; done by ONNX Runtime's basic level.

    The basic level keeps to standard operators, so that every engine can read the result; the higher ones do not
    (onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html).
    """
    import onnxruntime as ort

    target = work.into / _MODEL
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    if _package_bytes(work.source) > _MAX_PROTO_BYTES:
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    before = count_nodes(load_graph(work.source))
    ort.InferenceSession(str(work.source), options, providers=["CPUExecutionProvider"])
    notes = {"nodes_before": before, "nodes_after": count_nodes(load_graph(target))}
    return Converted(target, "onnx", {**notes, "libraries": versions_of("onnxruntime", "onnx")})


def to_fp16(work: Work) -> Converted:
    """Weights and arithmetic in 16-bit floats; inputs and outputs keep their types.

    Meant for GPUs: on most CPUs, ONNX Runtime turns every operator's inputs back to 32 bits.
    """
    onnx = onnx_library()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load_model(str(work.source))
    weights = sum(tensor.data_type == onnx.TensorProto.FLOAT for tensor in model.graph.initializer)
    if weights == 0:
        raise ConversionFailed("The model has no 32-bit weights, so there is nothing that 16 bits would save.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one a weight that 16 bits cannot hold; the fidelity check judges
        halved = convert_float_to_float16(model, keep_io_types=True)
    target = save_graph(halved, work.into)
    check_loads(target)
    notes = {"tensors_halved": weights, "libraries": versions_of("onnxruntime", "onnx")}
    return Converted(target, "onnx", notes)


def onnx_library() -> Any:
    """The module `onnx`. Raises ConversionFailed with what to install."""
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx") from error
    return onnx


def load_graph(path: Path) -> Any:
    """The model without the weights that lie beside it."""
    return onnx_library().load_model(str(path), load_external_data=False)


def count_nodes(model: Any) -> int:
    """Nodes of the main graph."""
    return len(model.graph.node)


def save_graph(model: Any, into: Path) -> Path:
    """Write a model, its weights beside it where one file cannot hold them."""
    onnx, target = onnx_library(), into / _MODEL
    large = model.ByteSize() > _MAX_PROTO_BYTES
    extra = {"save_as_external_data": True, "location": _WEIGHTS} if large else {}
    onnx.save_model(model, str(target), **extra)
    return target


def check_loads(path: Path) -> None:
    """Raise ConversionFailed unless ONNX Runtime takes the model on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConversionFailed(
            "The converted model does not load; the model's operators do not allow it."
        ) from error


def _package_bytes(source: Path) -> int:
    return sum(path.stat().st_size for path in source.parent.iterdir() if path.is_file())
