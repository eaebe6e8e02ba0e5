"""The typed surface of a model: names, dtypes and shapes of its tensors.

Dtypes carry the names of the Open Inference Protocol v2 (`FP32`, `INT64`, `BYTES` …); `-1` in a shape is a
dynamic dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

# Open Inference Protocol v2, "Tensor Data Types". NumPy itself has no BF16.
NUMPY_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(np.object_),
}
_NAMES: Final[Mapping[np.dtype[Any], str]] = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a NumPy dtype; every string kind is `BYTES`. Raises KeyError for others."""
    if dtype.kind in "SUO":
        return "BYTES"
    return _NAMES[dtype]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name, dtype (protocol name) and shape, `-1` for a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire: `{name, dtype, shape}`."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_json`."""
        return cls(str(value["name"]), str(value["dtype"]), tuple(int(n) for n in value["shape"]))


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def why_not_batchable(self) -> str | None:
        """None when the first axis of every tensor is dynamic, otherwise a sentence that says which is not."""
        for kind, specs in (("input", self.inputs), ("output", self.outputs)):
            for spec in specs:
                if not spec.shape:
                    return f"{kind} {spec.name} is a scalar and has no batch axis"
                if spec.shape[0] != -1:
                    return f"{kind} {spec.name} has a fixed first axis of {spec.shape[0]}"
        return None

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire: `{inputs: […], outputs: […]}`."""
        return {"inputs": [s.to_json() for s in self.inputs], "outputs": [s.to_json() for s in self.outputs]}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[Mapping[str, Any]]]) -> Signature:
        """The inverse of `to_json`."""
        return cls(
            tuple(TensorSpec.from_json(v) for v in value["inputs"]),
            tuple(TensorSpec.from_json(v) for v in value["outputs"]),
        )
