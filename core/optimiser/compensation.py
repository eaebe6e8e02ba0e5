"""Gives a model's layers weights that are rounded already, each taking over the errors of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from core.optimiser.converted import Tensors
from core.optimiser.moments import attribute
from core.optimiser.onnx_graph import onnx_library

Array = np.ndarray[Any, Any]
Rounded = Callable[[Array, Array, bool], Array]
"""Weights [groups, outputs, 1 + inputs], a bias first, and the moments of their inputs, to rounded weights; the
last says whether the layer has a bias, without which the first one is 0 and stays so."""
FEW: Final = 16
"""With fewer samples the last layers see too few inputs to tell which go along with each other."""
_RANKS: Final = {"Conv": 4, "Gemm": 2}


class Counted:
    """Feeds that go by, and how many items were in them."""

    def __init__(self, feeds: Iterator[Tensors]) -> None:
        self._feeds = feeds
        self.items = 0

    def __iter__(self) -> Iterator[Tensors]:
        for feed in self._feeds:
            self.items += max((len(array) for array in feed.values() if array.ndim), default=1)
            yield feed


def layers_of(model: Any, constants: Mapping[str, Any]) -> Sequence[Any]:
    """Convolutions over pictures and `Gemm`s whose 32-bit constants are their own."""
    uses = Counter(name for node in model.graph.node for name in node.input)
    return [node for node in model.graph.node if _fits(node, constants, uses)]


def _fits(node: Any, constants: Mapping[str, Any], uses: Mapping[str, int]) -> bool:
    """Whether its weights, and bias where it has one, are 32-bit constants that nobody else uses."""
    if node.op_type not in _RANKS or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return False
    if attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1:
        return False
    tensors = [constants.get(name) for name in node.input[1:] if name]
    if any(tensor is None or uses[tensor.name] > 1 for tensor in tensors):
        return False
    float32 = onnx_library().TensorProto.FLOAT
    found = [tensor for tensor in tensors if tensor is not None and tensor.data_type == float32]
    return len(found) == len(tensors) and len(found[0].dims) == _RANKS[node.op_type]


def compensate_layer(node: Any, moments: Array, constants: Mapping[str, Any], rounded: Rounded) -> None:
    """Replace the layer's weights, and its bias where it has one of a number for each output."""
    from onnx import numpy_helper

    tensor = constants[node.input[1]]
    weights = numpy_helper.to_array(tensor)
    turned = node.op_type == "Gemm" and not attribute(node, "transB", 0)
    rows = weights.T if turned else weights
    by_group = rows.reshape(len(moments), len(rows) // len(moments), -1)
    bias = constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and list(bias.dims) == [len(rows)]:
        first = numpy_helper.to_array(bias).reshape(*by_group.shape[:2], 1)
        found = rounded(np.concatenate([first, by_group], axis=2), moments, True)
        bias.CopyFrom(numpy_helper.from_array(found[..., 0].reshape(-1).astype(np.float32), bias.name))
    else:
        none = np.zeros((*by_group.shape[:2], 1), by_group.dtype)  # a bias of 0 is exact, and stays
        found = rounded(np.concatenate([none, by_group], axis=2), moments, False)
    flat = found[..., 1:].reshape(rows.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(flat.T if turned else flat), tensor.name))
