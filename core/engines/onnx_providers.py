"""ONNX Runtime's execution providers: which one runs the graph, and how it is told to.

Options are those of onnxruntime.ai/docs/execution-providers.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from core.engines.base import EngineOptions
from core.engines.extras import choice
from core.errors import EngineUnavailable

_CPU: Final = "CPUExecutionProvider"
_NAMES: Final = {
    "cpu": _CPU,
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_ON_CPU: Final = ("cpu", "openvino")
_ON_CUDA: Final = ("cuda", "tensorrt")


def chosen_providers(library: ModuleType, options: EngineOptions, threads: int) -> list[Any]:
    """The providers, the preferred first and the CPU's last. Raises EngineUnavailable or LoadFailed."""
    kind, index = _device(options.device)
    provider = choice(options.extra, "provider", _ON_CPU if kind == "cpu" else _ON_CUDA)
    if _NAMES[provider] not in library.get_available_providers():
        raise EngineUnavailable(_what_is_missing(provider, options.device))
    if provider in ("cpu", "cuda"):
        choice(options.extra, "precision", ("fp32",))  # they compute in what the model is written in
    if provider == "cpu":
        return [_CPU]
    if provider == "openvino":
        precision = choice(options.extra, "precision", ("fp32", "bf16", "fp16")).upper()
        told = {"device_type": "CPU", "num_of_threads": threads, "precision": precision}
        return [(_NAMES[provider], told), _CPU]
    cuda = (_NAMES["cuda"], {"device_id": index})
    return [cuda, _CPU] if provider == "cuda" else [(_NAMES[provider], _tensorrt(options, index)), cuda, _CPU]


def provider_name(providers: list[Any]) -> str:
    """The library's name of the first."""
    first = providers[0]
    return str(first if isinstance(first, str) else first[0])


def built_in(library: ModuleType) -> tuple[str, ...]:
    """Our names of the providers that the library was built with."""
    return tuple(ours for ours, name in _NAMES.items() if name in library.get_available_providers())


def devices(library: ModuleType) -> tuple[str, ...]:
    """Those that the library was built for; whether a driver is there shows when a model loads."""
    return ("cpu", "cuda:0") if _NAMES["cuda"] in library.get_available_providers() else ("cpu",)


def _device(device: str) -> tuple[str, int]:
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (kind == "cpu" and index) or not (index or "0").isdecimal():
        raise EngineUnavailable(f"The engine onnx has no device {device!r}: it runs on cpu and cuda:N.")
    return kind, int(index or 0)


def _tensorrt(options: EngineOptions, index: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "device_id": index,
        "trt_fp16_enable": choice(options.extra, "precision", ("fp32", "fp16")) == "fp16",
    }
    if folder := options.extra.get("cache_dir"):
        told |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
    return told


def _what_is_missing(provider: str, device: str) -> str:
    if provider == "openvino":
        return "This ONNX Runtime has no OpenVINO in it: use the engine openvino, or install onnxruntime-openvino."
    if provider == "tensorrt":
        return "This ONNX Runtime has no TensorRT in it: use the engine tensorrt, or the provider cuda."
    install = "pip install 'pulvinar[gpu]' in place of 'pulvinar[cpu]'"
    return f"The device {device} needs ONNX Runtime with CUDA: {install}."
