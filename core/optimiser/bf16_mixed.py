"""Bfloat16 but for the first layers, for OpenVINO: as many at 32 bits as it takes for the answers to stay close.

The first layers work on the largest pictures with the fewest channels; what is rounded there reaches everything
after it, and no other channel makes up for it. OpenVINO computes a layer at 32 bits whatever its hint where the IR
says that its numbers may not become 16-bit ones (the attribute DisablePrecisionConversion, since 2026.2).
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree  # nosec B405  # for files that OpenVINO wrote
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed
from core.optimiser.bf16 import Compensated, compensated_model
from core.optimiser.converted import Converted, Tensors, Work, missing, versions_of
from core.optimiser.feeds import checked
from core.optimiser.mixed import MOST, STEP, Answers, difference, enough
from core.optimiser.onnx_graph import save_graph
from core.optimiser.openvino_ir import OPENVINO_HINT
from core.optimiser.quantise import inputs_of

_FEEDS: Final = 32
_WORTH: Final = 0.5
"""Part of the error that three more layers must take away: the first ones also take the most time."""
_LAYERS: Final = frozenset({"Convolution", "GroupConvolution", "MatMul"})
_VALUES: Final = frozenset({"Const", "Parameter", "Result"})
_KEPT: Final = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:f16"}


def mixed(work: Work) -> Converted:
    """OpenVINO IR with the weights of `bf16-compensated`, its first layers marked to be computed at 32 bits.

    Options are those of `bf16-compensated`, and `keep_first`: so many layers, which are then not measured. Raises
    ConversionFailed as it does, where OpenVINO does not compute in bfloat16 here, and where keeping layers does
    not bring the answers closer.
    """
    library = _openvino()
    feeds = list(checked(list(islice(work.feeds, _FEEDS)), inputs_of(work.source)))
    made = compensated_model(work, "bf16-mixed")
    kept, errors = int(work.option("keep_first", 0)), {}
    if not kept:
        errors = _errors(library, work.source, made, feeds)
        kept = enough(errors, _WORTH)
    if kept == 0:
        raise ConversionFailed(
            "Keeping the first layers at 32 bits brings the answers no closer: bf16-compensated is as good."
        )
    target = _written(library, made, kept, work.into)
    shown = {str(count): float(f"{error:.3g}") for count, error in errors.items()}
    notes = {
        **made.notes,
        "kept_at_fp32": [node.name for node in made.layers[:kept]],
        "error_by_layers_kept": shown,
    }
    libraries = versions_of("onnxruntime", "onnx", "numpy", "openvino")
    return Converted(target, "openvino", {**notes, "libraries": libraries})


def _errors(library: Any, source: Path, made: Compensated, feeds: Sequence[Tensors]) -> dict[int, float]:
    """The relative squared error of all outputs by how many first layers stay at 32 bits, 0 among them."""
    wanted = _answers(library, library.Core().read_model(str(source)), feeds, "f32")
    errors: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in range(0, min(MOST, len(made.layers) // 2) + 1, STEP):
            path = _written(library, made, count, Path(folder))
            got = _answers(library, library.Core().read_model(str(path)), feeds, "bf16")
            errors[count] = difference(wanted, got)
            if enough(errors, _WORTH) < count:
                break
    return errors


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino", OPENVINO_HINT) from error
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConversionFailed("This processor does not compute in bfloat16.")
    return openvino


def _answers(library: Any, model: Any, feeds: Sequence[Tensors], precision: str) -> Answers:
    config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    request = library.Core().compile_model(model, "CPU", config).create_infer_request()
    answers: Answers = []
    for feed in feeds:
        request.start_async(dict(feed))
        request.wait()
        answers += [request.get_output_tensor(place).data.copy() for place in range(len(model.outputs))]
    return answers


def _written(library: Any, made: Compensated, kept: int, into: Path) -> Path:
    """The IR with so many layers at 32 bits: `model.xml` and `model.bin`."""
    target = into / "model.xml"
    with tempfile.TemporaryDirectory() as folder:
        source = save_graph(made.with_first_kept(kept), Path(folder))
        library.save_model(library.Core().read_model(str(source)), str(target), compress_to_fp16=False)
    if kept:
        tree = ElementTree.parse(target)  # noqa: S314  # nosec B314  # OpenVINO wrote it just now
        mark(tree, kept)
        tree.write(target, encoding="utf-8", xml_declaration=True)
    return target


def mark(tree: Any, kept: int) -> int:
    """Mark all that comes before the layer after the first `kept` ones; returns how many operations that is."""
    layers = tree.getroot().find("layers")
    if layers is None:
        raise ConversionFailed("OpenVINO wrote something that is no IR.")
    seen = marked = 0
    for layer in layers:
        seen += layer.get("type") in _LAYERS
        if seen > kept:
            break
        if layer.get("type") not in _VALUES:
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.Element("rt_info")
                layer.insert(0 if layer.find("data") is None else 1, info)
            ElementTree.SubElement(info, "attribute", _KEPT)
            marked += 1
    return marked
