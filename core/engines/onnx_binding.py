"""Runs with the runtime's own values, bound to their places: what a GPU is fed by, and what carries BF16.

NumPy's arrays cannot hold BF16 for the runtime, and with them each run on a GPU allocates what it copies through.
"""

from __future__ import annotations

import ctypes
import math
from importlib import import_module
from typing import Any, Final

import numpy as np

from core.signature import NUMPY_DTYPES

_BF16: Final = NUMPY_DTYPES["BF16"]
_ONNX_BF16: Final = 16  # onnx.TensorProto.BFLOAT16


def run_bound(session: Any, outputs: list[str], feed: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    """As the session's `run`, for all dtypes but strings: inputs go straight to the device."""
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, _to_value(array))
    for name in outputs:
        binding.bind_output(name, "cpu")
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    return [_from_value(value) for value in binding.get_outputs()]


def _to_value(array: np.ndarray[Any, Any]) -> Any:
    value = import_module("onnxruntime").OrtValue
    if array.dtype != _BF16:
        return value.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16).reshape(array.shape)
    return value.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BF16)


def _from_value(value: Any) -> np.ndarray[Any, Any]:
    if value.data_type() != "tensor(bfloat16)":
        array: np.ndarray[Any, Any] = value.numpy()
        return array
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape)) if 0 not in shape else b""
    return np.frombuffer(bits, _BF16).reshape(shape)
