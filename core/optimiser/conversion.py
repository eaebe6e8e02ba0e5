"""The ways to turn a model into a faster one, by name. Each blocks and is meant for a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from core.errors import ConversionFailed, PlatformError
from core.optimiser.converted import Conversion, Converted, Tensors, Work

__all__ = ["CONVERSIONS", "Conversion", "Converted", "convert"]


def _conversion(
    name: str, place: str, about: str, source: str, target: str, precision: str, kind: str = ""
) -> Conversion:
    def make(work: Work) -> Converted:
        module, _, function = place.partition(":")
        made: Converted = getattr(import_module(f"core.optimiser.{module}"), function)(work)
        return made

    return Conversion(name, about, source, target, precision, kind == "calibrated", kind != "", make)


# (name, where, what it does, from, to, precision; "lossy" changes answers, "calibrated" needs samples besides)
CONVERSIONS: Final[Mapping[str, Conversion]] = {
    row[0]: _conversion(*row)
    for row in (
        ("simplified", "onnx_graph:simplify", "Constants folded, idle nodes gone.", "onnx", "onnx", "fp32"),
        ("fp16", "onnx_graph:to_fp16", "Weights and arithmetic in 16 bits.", "onnx", "onnx", "fp16", "lossy"),
        ("int8-dynamic", "quantise:dynamic", "Weights in 8 bits.", "onnx", "onnx", "int8", "lossy"),
        ("int8-static", "quantise:static", "All in 8 bits.", "onnx", "onnx", "int8", "calibrated"),
        ("int8-mixed", "mixed:mixed", "In 8 bits but for first layers.", "onnx", "onnx", "int8", "calibrated"),
        (
            "bf16-compensated",
            "bf16:compensate",
            "Weights for bfloat16.",
            "onnx",
            "onnx",
            "bf16",
            "calibrated",
        ),
        (
            "bf16-mixed",
            "bf16_mixed:mixed",
            "As bf16-compensated, first layers at 32 bits.",
            "onnx",
            "openvino",
            "bf16",
            "calibrated",
        ),
        ("openvino", "openvino_ir:to_ir", "OpenVINO's own form, 32-bit weights.", "onnx", "openvino", "fp32"),
        ("torchscript-onnx", "torchscript:to_onnx", "TorchScript as ONNX.", "torch", "onnx", "fp32"),
    )
}


def convert(
    name: str,
    source: Path,
    into: Path,
    feeds: Iterable[Tensors] = (),
    *,
    options: Mapping[str, Any] | None = None,
) -> Converted:
    """Convert the model file `source` and write what comes of it into the folder `into`. Blocks for long.

    `feeds` are engine inputs (input name -> array, the first axis the batch), one a sample batch; calibrated
    conversions need one or more, `torchscript-onnx` one. The notes say the versions of the libraries, the
    options that were used, and how many batches and items calibrated. Raises ConversionFailed.
    """
    conversion = CONVERSIONS.get(name)
    if conversion is None:
        raise ConversionFailed(f"There is no conversion {name!r}; there are {', '.join(CONVERSIONS)}.")
    into.mkdir(parents=True, exist_ok=True)
    try:
        return conversion.make(Work(source, into, feeds, options or {}))
    except (PlatformError, MemoryError):
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:300] or type(error).__name__
        what = what.replace(str(into), "the result").replace(str(source.parent), "the package")
        raise ConversionFailed(f"The conversion {name} does not work for this model: {what}") from error
