"""8-bit integers by ONNX Runtime's own tools: weights alone (dynamic), or activations too (static, calibrated).

Source: onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed
from core.optimiser.bias_correction import correct_biases
from core.optimiser.converted import Converted, Tensors, Work, missing, versions_of
from core.optimiser.feeds import checked
from core.optimiser.int8_weights import compensate_weights
from core.optimiser.onnx_graph import check_loads, load_graph

CALIBRATIONS: Final = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_QUANTISED_OPS: Final = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"}
)
_DYNAMIC_OPS: Final = ("MatMul", "Gemm", "Attention", "LSTM", "Gather", "EmbedLayerNormalization")
"""Not Conv: ConvInteger is slower than the 32-bit convolution on every CPU that was measured."""
_FEW: Final = 8
_SAMPLES: Final = 64
"""More were not better, and each takes two runs."""


def dynamic(work: Work) -> Converted:
    """Weights of matrix products in 8 bits, activations quantised as they come. Wins for models of text.

    Options: `per_channel` (true). Raises ConversionFailed where nothing can be quantised.
    """
    quantization = library()
    target = work.into / "model.onnx"
    per_channel = bool(work.option("per_channel", True))
    with prepared_graph(work.source, quantization) as prepared:
        quantization.quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=list(_DYNAMIC_OPS),
            per_channel=per_channel,
            weight_type=quantization.QuantType.QInt8,
        )
    notes = {"per_channel": per_channel}
    return _finished(target, notes)


def static(work: Work) -> Converted:
    """Weights and activations in 8 bits, in QDQ form, their ranges measured on the feeds.

    Options: `calibration` (minmax, percentile, entropy), `samples` (64 feeds at most),
    `per_channel` (true), `compensate` (false: weights that take over each other's errors, by 16 feeds at least),
    `bias_correction` (true: where that could not be), and which layers stay at 32 bits: `exclude`, by name, and
    `keep_first`, so many convolutions from the input on. Raises ConversionFailed without feeds, for feeds that do
    not fit, or where nothing can be quantised.
    """
    quantization = library()
    target = work.into / "model.onnx"
    calibration = str(work.option("calibration", "minmax"))
    if calibration not in CALIBRATIONS:
        raise ConversionFailed(f"There is no calibration {calibration!r}; there are {', '.join(CALIBRATIONS)}.")
    per_channel = bool(work.option("per_channel", True))
    feeds = list(islice(work.feeds, int(work.option("samples", _SAMPLES))))
    inputs, corrected, compensated = inputs_of(work.source), 0, 0
    reader = FeedReader(checked(feeds, inputs))
    with prepared_graph(work.source, quantization) as prepared:
        exclude = [*work.option("exclude", []), *_first(prepared, int(work.option("keep_first", 0)))]
        if work.option("compensate", False) and per_channel:
            room = _room(prepared, "compensated")
            prepared, compensated = compensate_weights(prepared, checked(feeds, inputs), exclude, room)
        if not compensated and work.option("bias_correction", True):
            room = _room(prepared, "corrected")
            prepared, corrected = correct_biases(prepared, checked(feeds, inputs), exclude, room)
        quantization.quantize_static(
            str(prepared),
            str(target),
            as_reader(quantization, reader),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=getattr(quantization.CalibrationMethod, CALIBRATIONS[calibration]),
            nodes_to_exclude=exclude,
        )
    notes = {"calibration": calibration, "per_channel": per_channel, "biases_corrected": corrected}
    notes["layers_compensated"] = compensated
    return _finished(target, {**notes, "kept_at_fp32": exclude, **reader.notes()})


def _first(prepared: Path, count: int) -> list[str]:
    convolutions = [node.name for node in load_graph(prepared).graph.node if node.op_type == "Conv"]
    return convolutions[:count]


def _room(prepared: Path, name: str) -> Path:
    room = prepared.parent / name
    room.mkdir()
    return room


class FeedReader:
    """Hands the feeds out one by one, and counts."""

    def __init__(self, feeds: Iterator[Tensors]) -> None:
        self._feeds = feeds
        self._batches = 0
        self._items = 0
        self._first = next(self._feeds, None)
        if self._first is None:
            raise ConversionFailed("int8-static measures ranges on samples and got none; upload samples.")

    def get_next(self) -> Tensors | None:
        """The next feed; None at the end."""
        feed, self._first = self._first or next(self._feeds, None), None
        if feed is not None:
            self._batches += 1
            self._items += max((array.shape[0] for array in feed.values() if array.ndim), default=1)
        return feed

    def notes(self) -> dict[str, Any]:
        """How much there was to measure on, and a warning where that was little."""
        counts: dict[str, Any] = {"calibration_batches": self._batches, "calibration_items": self._items}
        if self._items < _FEW:
            counts["note"] = f"Only {self._items} sample(s) calibrated; ranges that they do not reach are cut off."
        return counts


def as_reader(quantization: Any, reader: FeedReader) -> Any:
    """The reader as the library wants it."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The library asks for a class of its own."""

        def get_next(self) -> Tensors | None:
            """The next feed."""
            return reader.get_next()

    return Reader()


def inputs_of(source: Path) -> list[Any]:
    """The model's inputs, as ONNX Runtime tells them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return list(session.get_inputs())


@contextlib.contextmanager
def prepared_graph(source: Path, quantization: Any) -> Iterator[Path]:
    """The model with shapes inferred and batch norms merged, which is what the quantiser wants."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if _quantised_nodes(source):
        raise ConversionFailed("The model is quantised already.")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        yield prepared


def _finished(target: Path, notes: dict[str, Any]) -> Converted:
    count = _quantised_nodes(target)
    if count == 0:
        raise ConversionFailed(
            "The model has no layers that can be quantised: no convolution or matrix product with constant 32-bit "
            "weights."
        )
    check_loads(target)
    return Converted(
        target, "onnx", {**notes, "quantised_nodes": count, "libraries": versions_of("onnxruntime", "onnx")}
    )


def _quantised_nodes(path: Path) -> int:
    return sum(node.op_type in _QUANTISED_OPS for node in load_graph(path).graph.node)


def library() -> Any:
    """ONNX Runtime's tools. Raises ConversionFailed with what to install."""
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization
    except ImportError as error:
        raise missing("onnx and onnxruntime") from error
    return quantization
