"""What is worth trying beside the usual because it is installed here: providers, and engines of other packages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from core.engines.base import EngineInfo
from core.optimiser.candidate import Variant

# (provider of ONNX Runtime, precision, device), promising ones first
_PROVIDERS: Final = (
    ("tensorrt", "fp16", "cuda:0"),
    ("tensorrt", "fp32", "cuda:0"),
    ("openvino", "bf16", "cpu"),
    ("openvino", "fp32", "cpu"),
)
_LOSSLESS: Final = "fp32"


def installed_variants(
    format: str,
    providers: Collection[str],
    outside: Mapping[str, Sequence[str]],
    infos: Collection[EngineInfo],
    engines: Collection[str] = (),
    precisions: Collection[str] = (),
) -> list[Variant]:
    """The variants that ONNX Runtime's `providers` and the engines of other packages make possible.

    `outside` holds the formats of those engines that can be used here, by name; `engines` and `precisions` narrow
    the result down. An engine that does not compute in fp32 is taken by the first precision that it names.
    """
    usable = {info.name: info for info in infos if info.available}
    found = [
        Variant("onnx", "", precision, (("precision", precision), ("provider", provider)), device)
        for provider, precision, device in _PROVIDERS
        if format == "onnx" and provider in providers and "onnx" in usable and device in usable["onnx"].devices
    ]
    for name, formats in outside.items():
        if format in formats and name in usable:
            precision = _precision(usable[name])
            found += [Variant(name, "", precision, (), device) for device in usable[name].devices]
    return [
        one
        for one in found
        if (not engines or one.engine in engines) and (not precisions or one.precision in precisions)
    ]


def _precision(info: EngineInfo) -> str:
    return _LOSSLESS if _LOSSLESS in info.precisions or not info.precisions else info.precisions[0]
