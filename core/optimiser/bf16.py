"""Weights that bfloat16 holds exactly, chosen so that the layers' outputs stay close.

An engine that computes in bfloat16 rounds each weight to the nearest of its numbers, and each layer's errors add
up to a shift of its outputs. Here the weights are rounded before, each taking over the errors of those before it;
biases too, for engines round them as well. It costs nothing when the model runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from core.errors import ConversionFailed
from core.optimiser.compensation import FEW, Counted, compensate_layer, layers_of
from core.optimiser.converted import Converted, Work, versions_of
from core.optimiser.feeds import checked
from core.optimiser.moments import input_moments
from core.optimiser.onnx_graph import check_loads, onnx_library, save_graph
from core.optimiser.quantise import inputs_of, library, prepared_graph
from core.optimiser.rounding import DAMPING, compensated

_SAMPLES: Final = 256


@dataclass(frozen=True, slots=True)
class Compensated:
    """The model (`onnx.ModelProto`), which of its layers were compensated, their tensors before, and notes."""

    model: Any
    layers: Sequence[Any]
    before: Mapping[str, Any]
    notes: dict[str, Any]

    def with_first_kept(self, count: int) -> Any:
        """A copy whose first `count` layers have the weights and biases that they had."""
        copy = type(self.model)()
        copy.CopyFrom(self.model)
        kept = {name for node in self.layers[:count] for name in node.input[1:]}
        for tensor in copy.graph.initializer:
            if tensor.name in kept & self.before.keys():
                tensor.CopyFrom(self.before[tensor.name])
        return copy


def compensate(work: Work) -> Converted:
    """The same ONNX model with weights and biases of bfloat16's values, for an engine that computes in bfloat16.

    Options: `samples` (256 feeds at most), `damping` (0.03). Convolutions over pictures and `Gemm`s with constant
    32-bit weights are compensated; the rest is left to the engine. Raises ConversionFailed with too few samples,
    for samples that do not fit, or without such layers.
    """
    made = compensated_model(work, "bf16-compensated")
    target = save_graph(made.model, work.into)
    check_loads(target)
    return Converted(target, "onnx", {**made.notes, "libraries": versions_of("onnxruntime", "onnx", "numpy")})


def compensated_model(work: Work, name: str) -> Compensated:
    """The model with new weights, not saved yet; `name` is the conversion's, for what it raises."""
    feeds = Counted(checked(islice(work.feeds, int(work.option("samples", _SAMPLES))), inputs_of(work.source)))
    with prepared_graph(work.source, library()) as prepared:
        model = onnx_library().load_model(str(prepared))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = layers_of(model, constants)
    if not layers:
        raise ConversionFailed(
            "The model has no layers that can be compensated: no convolution over pictures or Gemm with constant "
            "32-bit weights of its own."
        )
    kernels = [list(constants[node.input[1]].dims[2:]) for node in layers]
    moments = input_moments(model, layers, kernels, feeds)
    if feeds.items < FEW:
        raise ConversionFailed(
            f"{name} measures layers on {FEW} samples at least and got {feeds.items}; upload more samples."
        )
    before = {name: _copy(constants[name]) for node in layers for name in node.input[1:] if name}
    damping = float(work.option("damping", DAMPING))
    for node, measured in zip(layers, moments, strict=True):
        compensate_layer(node, measured, constants, lambda weights, x, _: compensated(weights, x, damping))
    notes = {"layers_compensated": len(layers), "calibration_items": feeds.items, "damping": damping}
    return Compensated(model, layers, before, notes)


def _copy(tensor: Any) -> Any:
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    return copy
