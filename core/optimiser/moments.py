"""Measures what goes into a model's layers: E[x x'] of each, over samples and places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from core.optimiser.converted import Tensors
from core.optimiser.onnx_graph import onnx_library

Array = np.ndarray[Any, Any]
PLACES: Final = 32
"""Of each picture, chosen by chance: neighbouring ones say the same."""
_PLACES_OF_FEW: Final = 8
_FEW_INPUTS: Final = 64
"""Layers with no more inputs, such as convolutions by channel, need fewer places to know them."""
_TOGETHER: Final = 2048
"""Rows that are multiplied at once: adding up large sums for each sample would take most of the time."""


def attribute(node: Any, name: str, default: Any) -> Any:
    """A node's attribute, or what the operator takes it to be."""
    for one in node.attribute:
        if one.name == name:
            return onnx_library().helper.get_attribute_value(one)
    return default


def input_moments(
    model: Any, layers: Sequence[Any], kernels: Sequence[Sequence[int]], feeds: Iterable[Tensors]
) -> list[Array]:
    """E[x x'] of each layer's inputs, float64 [groups, 1 + inputs, 1 + inputs]; x starts with a 1, for the bias.

    `layers` are `Conv`s over pictures and `Gemm`s of the model; `kernels` the heights and widths of the former's
    weights. The inputs of a grouped convolution are those of one of its groups. Nothing without feeds.
    """
    import onnxruntime as ort

    onnx, copy = onnx_library(), type(model)()
    copy.CopyFrom(model)
    given = {value.name for value in model.graph.input}
    wanted = [name for name in dict.fromkeys(node.input[0] for node in layers) if name not in given]
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums = [_Sum() for _ in layers]
    chance = np.random.default_rng(0)
    for feed in feeds:
        answers = session.run(wanted, dict(feed)) if wanted else []  # no names would mean all
        tensors = {**feed, **dict(zip(wanted, answers, strict=True))}
        for node, kernel, total in zip(layers, kernels, sums, strict=True):
            total.add(_inputs(tensors[node.input[0]], node, kernel, chance))
    return [total.mean() for total in sums if total.seen]


class _Sum:
    """x x' over rows, float32 [groups, rows, inputs] at a time."""

    def __init__(self) -> None:
        self._waiting: list[Array] = []
        self._rows = self._waiting_rows = 0
        self._sum: Any = 0.0

    def add(self, rows: Array) -> None:
        self._waiting.append(rows)
        self._waiting_rows += rows.shape[1]
        if self._waiting_rows >= _TOGETHER or rows.shape[2] <= _FEW_INPUTS:
            self._multiply()

    @property
    def seen(self) -> int:
        return self._rows + self._waiting_rows

    def mean(self) -> Array:
        if self._waiting:
            self._multiply()
        return np.asarray(self._sum) / self._rows

    def _multiply(self) -> None:
        rows = np.concatenate(self._waiting, axis=1)
        self._sum = self._sum + (rows.swapaxes(1, 2) @ rows).astype(np.float64)
        self._rows += rows.shape[1]
        self._waiting, self._waiting_rows = [], 0


def _inputs(tensor: Array, node: Any, kernel: Sequence[int], chance: np.random.Generator) -> Array:
    """Rows of x, float32 [groups, rows, 1 + inputs]."""
    if node.op_type == "Gemm":
        flat = tensor.T if attribute(node, "transA", 0) else tensor
        rows = flat[None]
    else:
        groups = attribute(node, "group", 1)
        seen = np.concatenate([_seen(picture, node, kernel, chance) for picture in tensor])
        rows = seen.reshape(len(seen), groups, -1).swapaxes(0, 1)
    return np.concatenate([np.ones((*rows.shape[:2], 1), np.float32), rows], axis=2)


def _seen(picture: Array, node: Any, kernel: Sequence[int], chance: np.random.Generator) -> Array:
    """What the kernel sees at some places of a picture [channels, height, width]: [places, channels, kernel]."""
    pads = attribute(node, "pads", [0, 0, 0, 0])
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    padded = np.pad(picture, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = [(size - 1) * step for size, step in zip(kernel, dilations, strict=True)]
    high, wide = (
        (size - more - 1) // stride + 1
        for size, more, stride in zip(padded.shape[1:], reach, strides, strict=True)
    )
    inputs = len(picture) // attribute(node, "group", 1) * kernel[0] * kernel[1]
    most = PLACES if inputs > _FEW_INPUTS else _PLACES_OF_FEW
    places = chance.choice(high * wide, min(most, high * wide), replace=False)
    top, left = places // wide * strides[0], places % wide * strides[1]
    parts = [
        padded[:, top + row * dilations[0], left + column * dilations[1]]
        for row in range(kernel[0])
        for column in range(kernel[1])
    ]
    return np.stack(parts, axis=2).swapaxes(0, 1)
