"""8-bit integers but for the first layers, as many of them as it takes for the answers to stay close.

Rounding hurts most where few channels carry much: in the stem and the first depthwise convolutions. How many
layers that are differs by model, so it is measured: the first 0, 3, 6, … stay at 32 bits until three more bring
little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.errors import ConversionFailed
from core.optimiser.converted import Converted, Tensors, Work
from core.optimiser.feeds import checked
from core.optimiser.onnx_graph import load_graph
from core.optimiser.quantise import FeedReader, as_reader, inputs_of, library, prepared_graph, static

STEP: Final = 3
MOST: Final = 12
"""Layers kept at most: the first ones work on the largest pictures, and each costs time."""
WORTH: Final = 0.25
"""Part of the error that three more layers must take away."""
_LAYERS: Final = frozenset({"Conv", "Gemm", "MatMul"})
_FEEDS: Final = 32

Answers = list[np.ndarray[Any, Any]]


def mixed(work: Work) -> Converted:
    """As `int8-static`, with its options, the sensitive first layers kept at 32 bits and named in the notes.

    Unless told otherwise it compensates: what remains is worth the time.

    Raises ConversionFailed as it does, and where keeping layers does not bring the answers closer.
    """
    feeds = list(work.feeds)
    measured = list(checked(list(islice(feeds, _FEEDS)), inputs_of(work.source)))
    if not measured:
        raise ConversionFailed("int8-mixed measures layers on samples and got none; upload samples.")
    with prepared_graph(work.source, library()) as prepared:
        layers = [node.name for node in load_graph(prepared).graph.node if node.op_type in _LAYERS]
        errors = errors_by_kept(prepared, layers, measured)
    kept = enough(errors)
    if kept == 0:
        raise ConversionFailed(
            "Keeping the first layers at 32 bits brings the answers no closer: int8-static is as good."
        )
    exclude = [*work.option("exclude", []), *layers[:kept]]
    made = static(Work(work.source, work.into, feeds, {"compensate": True, **work.options, "exclude": exclude}))
    shown = {str(count): float(f"{error:.3g}") for count, error in errors.items()}
    return Converted(made.path, made.format, {**made.notes, "error_by_layers_kept": shown})


def errors_by_kept(prepared: Path, layers: Sequence[str], feeds: Sequence[Tensors]) -> dict[int, float]:
    """The relative squared error of all outputs by how many first layers stay at 32 bits, 0 among them.

    Ends where more bring little, and at half of the layers.
    """
    wanted = _answers(prepared, feeds)
    errors: dict[int, float] = {}
    for count in range(0, min(MOST, len(layers) // 2) + 1, STEP):
        got = _quantised(prepared, layers[:count], feeds, lambda path: _answers(path, feeds))
        errors[count] = difference(wanted, got)
        if enough(errors) < count:
            break
    return errors


def enough(errors: Mapping[int, float], worth: float = WORTH) -> int:
    """The number of layers after which the next step takes away less than that part of the error."""
    counts = sorted(errors)
    for count, more in pairwise(counts):
        if not errors[more] < errors[count] * (1 - worth):
            return count
    return counts[-1]


def _quantised(
    prepared: Path, exclude: Sequence[str], feeds: Sequence[Tensors], use: Callable[[Path], Answers]
) -> Answers:
    quantization = library()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        quantization.quantize_static(
            str(prepared),
            str(target),
            as_reader(quantization, FeedReader(iter(feeds))),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=list(exclude),
        )
        return use(target)


def _answers(path: Path, feeds: Sequence[Tensors]) -> Answers:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [array for feed in feeds for array in session.run(None, dict(feed))]


def difference(wanted: Answers, got: Answers) -> float:
    """The squared difference over the squared size, of all floating outputs together."""
    pairs = [(one, other) for one, other in zip(wanted, got, strict=True) if one.dtype.kind == "f"]
    size = sum(float(np.square(one, dtype=np.float64).sum()) for one, _ in pairs)
    error = sum(float(np.square(one.astype(np.float64) - other).sum()) for one, other in pairs)
    return error / size if size else 0.0
