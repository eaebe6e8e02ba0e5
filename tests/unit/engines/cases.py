"""The engines under the conformance suite, each with its models: a new engine is one more case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import torch_models
from tests.unit.engines import models

DTYPES = ("BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES")
Shape = Sequence[int]


def _no_extra(dtype: str, shape: Shape) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Case:
    """`doubling` writes a model y = 2x (BOOL and BYTES: y = x) of one input `x` and one output `y`, of the dtype
    and shape asked for, -1 being dynamic, and returns its file. `heavy` writes one of so many megabytes of
    weights. `extra` and `heavy_extra` are what the engine has to be told besides, `dtypes` those it carries."""

    engine: str
    format: str
    doubling: Callable[[Path, str, Shape], Path]
    heavy: Callable[[Path, int], Path]
    dtypes: tuple[str, ...] = DTYPES
    extra: Callable[[str, Shape], Mapping[str, Any]] = _no_extra
    heavy_extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As pytest shows it."""
        return f"{self.engine}-{self.format}"


NO_TEXT = tuple(dtype for dtype in DTYPES if dtype != "BYTES")
CASES = (
    Case("onnx", "onnx", models.doubling, models.big),
    Case("openvino", "onnx", models.doubling, models.big, NO_TEXT),
    Case("openvino", "openvino", models.ir_doubling, models.ir_big, NO_TEXT),
    Case(
        *("torch", "torchscript", torch_models.script_doubling, torch_models.script_big, NO_TEXT),
        extra=torch_models.told,
        heavy_extra=torch_models.big_told(32),
    ),
    Case("torch", "pt2", torch_models.program_doubling, torch_models.program_big, NO_TEXT),
    Case("fake", "fake", models.fake, models.fake_big),
)
