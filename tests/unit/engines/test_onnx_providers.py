from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx_binding import run_bound
from core.engines.onnx_providers import chosen_providers, devices, provider_name
from core.errors import EngineUnavailable, LoadFailed
from core.signature import NUMPY_DTYPES
from tests.unit.engines.models import ONNX_TYPES, doubling

CPU = "CPUExecutionProvider"


def library(*names: str) -> ModuleType:
    """A build of the library with these providers: no machine has them all."""
    built = ModuleType("onnxruntime")
    built.get_available_providers = lambda: [*names, CPU]  # type: ignore[attr-defined]
    return built


WITH_ALL = library("TensorrtExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider")


def names(device: str, **extra: Any) -> list[str]:
    chosen = chosen_providers(WITH_ALL, EngineOptions(device=device, extra=extra), 2)
    return [provider_name([provider]).removesuffix("ExecutionProvider") for provider in chosen]


def test_the_order_is_that_of_preference() -> None:
    assert names("cpu") == ["CPU"]
    assert names("cpu", provider="openvino") == ["OpenVINO", "CPU"]
    assert names("cuda:1") == ["CUDA", "CPU"]
    assert names("cuda", provider="tensorrt") == ["Tensorrt", "CUDA", "CPU"]
    assert devices(WITH_ALL) == ("cpu", "cuda:0")
    assert devices(library()) == ("cpu",)


def test_what_they_are_told() -> None:
    options = EngineOptions(
        device="cuda:1", extra={"provider": "tensorrt", "precision": "fp16", "cache_dir": "/c"}
    )
    (_, tensorrt), (_, cuda), _ = chosen_providers(WITH_ALL, options, 2)
    assert cuda == {"device_id": 1}
    assert tensorrt == {
        "device_id": 1,
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": "/c",
    }
    options = EngineOptions(extra={"provider": "openvino", "precision": "bf16"})
    assert chosen_providers(WITH_ALL, options, 3)[0][1] == {
        "device_type": "CPU",
        "num_of_threads": 3,
        "precision": "BF16",
    }


@pytest.mark.parametrize(
    ("device", "provider", "said"),
    [
        ("cpu", "openvino", "use the engine openvino"),
        ("cuda:0", "cuda", r"cuda:0 needs ONNX Runtime with CUDA: pip install 'pulvinar\[gpu\]'"),
        ("cuda:0", "tensorrt", "use the engine tensorrt"),
    ],
)
def test_a_provider_that_is_not_built_in_is_never_replaced(device: str, provider: str, said: str) -> None:
    with pytest.raises(EngineUnavailable, match=said):
        chosen_providers(library(), EngineOptions(device=device, extra={"provider": provider}), 1)


def test_a_precision_that_would_be_ignored_is_refused() -> None:
    assert names("cpu", precision="fp32") == ["CPU"]
    for device in ("cpu", "cuda:0"):
        with pytest.raises(LoadFailed, match="precision is fp32, not 'bf16'"):
            names(device, precision="bf16")


def test_a_provider_of_another_device_is_answered_with_those_of_this() -> None:
    with pytest.raises(LoadFailed, match="provider is cpu, openvino, not 'cuda'"):
        chosen_providers(WITH_ALL, EngineOptions(extra={"provider": "cuda"}), 1)


@pytest.mark.parametrize("dtype", [name for name in sorted(ONNX_TYPES) if name != "BYTES"])
def test_a_bound_run_answers_as_a_plain_one(dtype: str, tmp_path: Any) -> None:
    session = onnxruntime.InferenceSession(str(doubling(tmp_path, dtype)), providers=[CPU])
    x = np.array([[1, 0, 3], [4, 5, 6]], NUMPY_DTYPES[dtype])
    (bound,), (plain,) = run_bound(session, ["y"], {"x": x}), session.run(["y"], {"x": x})
    assert bound.dtype == plain.dtype
    assert np.array_equal(bound, plain)
