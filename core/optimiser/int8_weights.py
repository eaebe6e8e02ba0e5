"""A model's weights on the grid of 8 bits, each taking over the errors of the others, before it is quantised.

Rounded to the nearest number, weights bring more error than activations do (docs/decisions/087); chosen like this,
they bring less than a twentieth of that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from core.optimiser.compensation import FEW, Array, Counted, compensate_layer, layers_of
from core.optimiser.converted import Tensors
from core.optimiser.moments import input_moments
from core.optimiser.onnx_graph import onnx_library, save_graph
from core.optimiser.rounding import DAMPING, Int8, compensated


def compensate_weights(
    prepared: Path, feeds: Iterable[Tensors], skip: Collection[str], into: Path
) -> tuple[Path, int]:
    """Write the model with such weights into `into`; returns the file and how many layers were compensated.

    Nodes named in `skip` are left alone. 0 layers, and the model as it was, where there are none, or with too few
    feeds to tell which inputs go along with each other.
    """
    model = onnx_library().load_model(str(prepared))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in layers_of(model, constants) if node.name not in skip]
    counted = Counted(iter(feeds))
    kernels = [list(constants[node.input[1]].dims[2:]) for node in layers]
    moments = input_moments(model, layers, kernels, counted) if layers else []
    if not layers or counted.items < FEW:
        return prepared, 0
    for node, measured in zip(layers, moments, strict=True):
        compensate_layer(node, measured, constants, _to_int8)
    return save_graph(model, into), len(layers)


def _to_int8(weights: Array, moments: Array, has_bias: bool) -> Array:
    return compensated(weights, moments, DAMPING, Int8(weights, has_bias=has_bias))
