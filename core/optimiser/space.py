"""What is worth trying, in which order: functions of values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.optimiser.candidate import Candidate, Objective, Setting, Variant

LOSSY: Final = frozenset({"bf16", "fp16", "int8"})
"""Precisions whose answers have to be judged before they may be chosen."""
BATCHES: Final = (8, 32)

# What has won most often comes first, and before it what needs no conversion; a GPU's need one.
_VARIANTS: Final[Mapping[str, Sequence[Variant]]] = {
    "onnx": (
        Variant("tensorrt", "", "fp16", (("precision", "fp16"),), "cuda:0"),
        Variant("onnx", "fp16", "fp16", (), "cuda:0"),
        Variant("onnx", "", "fp32", (), "cuda:0"),
        Variant("tensorrt", "", "fp32", (("precision", "fp32"),), "cuda:0"),
        Variant("openvino", "", "bf16", (("precision", "bf16"),)),
        Variant("openvino", "", "fp16", (("precision", "fp16"),)),
        Variant("onnx", "int8-dynamic", "int8"),
        Variant("openvino", "bf16-compensated", "bf16", (("precision", "bf16"),)),
        Variant("openvino", "bf16-mixed", "bf16", (("precision", "bf16"),)),
        Variant("onnx", "int8-static", "int8"),
        Variant("openvino", "int8-static", "int8"),
        Variant("onnx", "int8-mixed", "int8"),
        Variant("openvino", "int8-mixed", "int8"),
        Variant("openvino", "", "fp32", (("precision", "fp32"),)),
        Variant("onnx", "simplified", "fp32"),
        Variant("onnx", "fp16", "fp16"),
    ),
    "openvino": (Variant("openvino", "", "bf16", (("precision", "bf16"),)),),
    "torchscript": (
        Variant("torch", "", "bf16", (("precision", "bf16"),), "cuda:0"),
        Variant("torch", "", "fp32", (), "cuda:0"),
        Variant("onnx", "torchscript-onnx", "fp32"),
        Variant("openvino", "torchscript-onnx", "bf16", (("precision", "bf16"),)),
        Variant("torch", "", "bf16", (("precision", "bf16"),)),
    ),
    "pt2": (
        Variant("torch", "", "bf16", (("precision", "bf16"),), "cuda:0"),
        Variant("torch", "", "fp32", (), "cuda:0"),
        Variant("torch", "", "bf16", (("precision", "bf16"),)),
    ),
}
_REFERENCES: Final[Mapping[str, Variant]] = {
    "onnx": Variant("onnx"),
    "openvino": Variant("openvino", "", "fp32", (("precision", "fp32"),)),
    "torchscript": Variant("torch"),
    "pt2": Variant("torch"),
    "fake": Variant("fake"),
}


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine has: by engine, its devices and precisions; which conversions; how many cores."""

    devices: Mapping[str, Sequence[str]]
    precisions: Mapping[str, Sequence[str]]
    conversions: Collection[str]
    cores: int


def reference(format: str) -> Variant | None:
    """The variant that others are held against: full precision, as uploaded; None for a format without one."""
    return _REFERENCES.get(format)


def variants(
    format: str, here: Here, engines: Collection[str] = (), precisions: Collection[str] = ()
) -> list[Variant]:
    """The variants that can run here, promising ones first; `engines` and `precisions` narrow them down."""
    return [
        variant
        for variant in _VARIANTS.get(format, ())
        if _possible(variant, here)
        and (not engines or variant.engine in engines)
        and (not precisions or variant.precision in precisions)
    ]


def _possible(variant: Variant, here: Here) -> bool:
    if variant.device not in here.devices.get(variant.engine, ()):
        return False
    if variant.conversion and variant.conversion not in here.conversions:
        return False
    asked = dict(variant.extra).get("precision")
    known = here.precisions.get(variant.engine, ())
    return asked is None or not known or asked in known


def first_setting(objective: Objective, variant: Variant, cores: int) -> Setting:
    """The setting that a variant is judged by: all cores on one item, or for throughput a core for each."""
    if variant.device != "cpu":
        return Setting(1, 1, 32 if objective == "throughput" else 1)
    return Setting(1, cores, 1) if objective == "throughput" else Setting(cores, 1, 1)


def other_settings(
    objective: Objective, variant: Variant, cores: int, batchable: bool, max_batch: int
) -> list[Setting]:
    """More settings for a variant that did well, promising ones first."""
    tried = first_setting(objective, variant, cores)
    batches = [size for size in BATCHES if batchable and size <= max_batch]
    if objective == "throughput":
        wide = [Setting(cores, 1, size) for size in batches[:1]]
        settings: Iterable[Setting] = [*(Setting(1, cores, size) for size in batches), *wide]
    else:
        settings = [Setting(1, 1, 1)]
    return [one for one in dict.fromkeys(settings) if one != tried]  # on one core two of them are one


def must_be_judged(variant: Variant) -> bool:
    """Whether its answers may differ by more than rounding."""
    return variant.precision in LOSSY


def candidate(variant: Variant, objective: Objective, cores: int) -> Candidate:
    """A variant with the setting that it is judged by."""
    return Candidate(variant, first_setting(objective, variant, cores))
