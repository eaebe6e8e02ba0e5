"""The engines under the conformance suite, each with its models and devices: a new engine is one more case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.engines.registry import engine_class
from tests import torch_models
from tests.unit.engines import models
from tests.unit.engines.subjects import Doubling, Loudest, Shape, Subject

DTYPES = ("BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES")
NO_TEXT = tuple(dtype for dtype in DTYPES if dtype != "BYTES")
GPU = "cuda:0"


def _no_extra(dtype: str, shape: Shape) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Case:
    """`write` makes a model of `subject` of the dtype and shape asked for, -1 being dynamic, and returns its file.
    `heavy` makes one of so many megabytes of weights. `told` and `heavy_told` are what the engine has to be told
    of them, `extra` what it is told always, `dtypes` those it carries."""

    engine: str
    format: str
    write: Callable[[Path, str, Shape], Path]
    heavy: Callable[[Path, int], Path]
    dtypes: tuple[str, ...] = DTYPES
    told: Callable[[str, Shape], Mapping[str, Any]] = _no_extra
    heavy_told: Mapping[str, Any] = field(default_factory=dict)
    subject: Subject = field(default_factory=Doubling)
    device: str = "cpu"
    extra: Mapping[str, Any] = field(default_factory=dict)
    inner_axes: bool = True
    """Whether other axes than the batch may be dynamic."""

    @property
    def name(self) -> str:
        """As pytest shows it."""
        provider = str(self.extra.get("provider", ""))
        return "-".join(filter(None, (self.engine, self.format, provider, self.device.partition(":")[0])))

    def options(self, dtype: str = "FP32", shape: Shape = (-1, 3)) -> EngineOptions:
        """How such a model is loaded."""
        return EngineOptions(device=self.device, threads=1, extra={**self.extra, **self.told(dtype, shape)})

    def why_absent(self) -> str | None:
        """Why it cannot run on this machine, or None."""
        info = engine_class(self.engine).info()
        if not info.available:
            return f"{self.name}: {info.reason}"
        if self.device not in info.devices:
            return f"{self.name}: {self.engine} {info.version} has no {self.device} here."
        provider = self.extra.get("provider")
        if provider and provider not in OnnxEngine.providers():
            return f"{self.name}: this ONNX Runtime is built without the provider {provider}."
        return None


_ONNX = ("onnx", "onnx", models.doubling, models.big)
_SCRIPT = ("torch", "torchscript", torch_models.script_doubling, torch_models.script_big, NO_TEXT)
_PROGRAM = ("torch", "pt2", torch_models.program_doubling, torch_models.program_big, NO_TEXT)
_SCRIPT_TOLD: Mapping[str, Any] = {"told": torch_models.told, "heavy_told": torch_models.big_told(32)}
_WHISPER = ("ctranslate2", "ctranslate2", models.whisper, models.whisper_big, Loudest.dtypes)
_WHISPER_TOLD: Mapping[str, Any] = {"subject": Loudest(), "heavy_told": {"precision": "fp32"}}
# Those that its elementwise layer adds in (NVIDIA's "TensorRT Operators").
_TENSORRT_DTYPES = ("INT32", "INT64", "FP16", "FP32")

CASES = (
    Case(*_ONNX),
    Case(*_ONNX, NO_TEXT, extra={"provider": "openvino"}),
    Case(*_ONNX, device=GPU),
    Case(*_ONNX, _TENSORRT_DTYPES, device=GPU, extra={"provider": "tensorrt"}),
    Case("openvino", "onnx", models.doubling, models.big, NO_TEXT),
    Case("openvino", "openvino", models.ir_doubling, models.ir_big, NO_TEXT),
    Case(*_SCRIPT, **_SCRIPT_TOLD),
    Case(*_SCRIPT, **_SCRIPT_TOLD, device=GPU),
    Case(*_PROGRAM),
    Case(*_PROGRAM, device=GPU),
    Case("tensorrt", "onnx", models.doubling, models.big, _TENSORRT_DTYPES, device=GPU, inner_axes=False),
    Case(*_WHISPER, **_WHISPER_TOLD),
    Case(*_WHISPER, **_WHISPER_TOLD, device=GPU),
    Case("fake", "fake", models.fake, models.fake_big),
)
ABSENT = {case.name: why for case in CASES if (why := case.why_absent())}
"""Their reasons."""
PRESENT = tuple(case for case in CASES if case.name not in ABSENT)
