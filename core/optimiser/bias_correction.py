"""Takes the shift that rounded weights cause out of a model's biases, before it is quantised.

Rounding the weights W of a layer to Wq moves the mean of its output by (Wq - W)·E[x]; adding (W - Wq)·E[x] to the
bias undoes it. Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, with E[x] measured on samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.optimiser.converted import Tensors
from core.optimiser.onnx_graph import onnx_library, save_graph

Array = np.ndarray[Any, Any]
_LEVELS: Final = 127
"""Of a symmetric signed weight."""
_RANKS: Final = {"Conv": 4, "Gemm": 2}


def correct_biases(
    prepared: Path, feeds: Iterable[Tensors], skip: Collection[str], into: Path
) -> tuple[Path, int]:
    """Write the model with corrected biases into `into`; returns the file and how many layers were corrected.

    Convolutions over pictures and `Gemm`s with constant weights and biases are; nodes named in `skip` are not.
    """
    model = onnx_library().load_model(str(prepared))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    able = [node for node in model.graph.node if _has_constants(node, constants, uses)]
    layers = [node for node in able if node.name not in skip]
    if not layers:
        return prepared, 0
    for node, mean in zip(layers, _mean_inputs(model, layers, feeds), strict=True):
        _correct(node, mean, constants)
    return save_graph(model, into), len(layers)


def _has_constants(node: Any, constants: Mapping[str, Any], uses: Mapping[str, int]) -> bool:
    """Whether the layer's weights and bias are 32-bit constants, and the bias nobody else's."""
    if node.op_type not in _RANKS or len(node.input) < 3 or uses[node.input[2]] > 1:
        return False
    if any(attribute.name in ("alpha", "beta") and attribute.f != 1 for attribute in node.attribute):
        return False
    weight, bias = (constants.get(name) for name in node.input[1:3])
    if weight is None or bias is None or len(weight.dims) != _RANKS[node.op_type]:
        return False
    return bool(weight.data_type == bias.data_type == onnx_library().TensorProto.FLOAT)


def _mean_inputs(model: Any, layers: list[Any], feeds: Iterable[Tensors]) -> list[Array]:
    """E[x] of each layer, one number a channel: the mean over batch and places."""
    import onnxruntime as ort

    copy, names = type(model)(), [f"pulvinar_mean_{number}" for number in range(len(layers))]
    copy.CopyFrom(model)
    helper = onnx_library().helper
    for name, node in zip(names, layers, strict=True):
        mean = "GlobalAveragePool" if node.op_type == "Conv" else "Identity"
        copy.graph.node.append(helper.make_node(mean, [node.input[0]], [name]))
        copy.graph.output.append(helper.make_tensor_value_info(name, onnx_library().TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: list[Any] = [0.0] * len(names)
    items = 0
    for feed in feeds:
        means = session.run(names, dict(feed))
        items += len(means[0])
        channels = [mean.reshape(mean.shape[:2]).sum(axis=0) for mean in means]
        sums = [total + channel for total, channel in zip(sums, channels, strict=True)]
    return [np.asarray(total, np.float64) / max(1, items) for total in sums]


def _correct(node: Any, mean: Array, constants: Mapping[str, Any]) -> None:
    from onnx import numpy_helper

    weight, bias = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Gemm" and not ("transB" in attributes and attributes["transB"].i):
        weight = weight.T
    groups = attributes["group"].i if "group" in attributes else 1
    moved = (_rounding(weight) * _inputs_of(mean, len(weight), groups)).sum(axis=1)
    mended = (bias + moved.reshape(bias.shape)).astype(bias.dtype)
    constants[node.input[2]].CopyFrom(numpy_helper.from_array(mended, node.input[2]))


def _rounding(weight: Array) -> Array:
    """W - Wq summed over the kernel: [outputs, inputs of the group], symmetric, one scale an output."""
    flat = weight.astype(np.float64).reshape(weight.shape[0], weight.shape[1], -1)
    largest = np.abs(flat).max(axis=(1, 2), keepdims=True)
    scale = np.where(largest > 0, largest / _LEVELS, 1.0)
    lost: Array = (flat - np.round(flat / scale) * scale).sum(axis=2)
    return lost


def _inputs_of(mean: Array, outputs: int, groups: int) -> Array:
    """The mean inputs that each output sees: [outputs, inputs of its group]."""
    return np.repeat(mean.reshape(groups, -1), outputs // groups, axis=0)
