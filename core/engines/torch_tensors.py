"""NumPy's arrays as PyTorch's tensors and back."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import numpy as np

from core.errors import LoadFailed, RunFailed
from core.signature import NUMPY_DTYPES, Signature, TensorSpec

TORCH_DTYPES: Final = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "bfloat16",
}
"""PyTorch's names of the protocol's dtypes; it knows no texts."""
_BF16: Final = NUMPY_DTYPES["BF16"]


def check_dtypes(signature: Signature) -> None:
    """Raise LoadFailed for a tensor that PyTorch cannot carry."""
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype not in TORCH_DTYPES:
            raise LoadFailed(
                f"The tensor {spec.name[:80]} is {spec.dtype[:16]}, which PyTorch does not have; it has "
                f"{', '.join(TORCH_DTYPES)}."
            )


def to_tensor(library: ModuleType, array: np.ndarray[Any, Any]) -> Any:
    """A tensor on cpu, of a copy: a model may write into its inputs, and others may read them later."""
    if array.dtype == _BF16:
        return library.from_numpy(np.array(array.view(np.uint16), order="C")).view(library.bfloat16)
    return library.from_numpy(np.array(array, order="C"))


def to_array(library: ModuleType, value: Any, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """An array of the output's dtype and shape. Raises RunFailed when the model gave something else.

    Autocast's BF16 becomes what the output is without it.
    """
    if not isinstance(value, library.Tensor):
        raise RunFailed(f"The output {spec.name} is no tensor; export the model with tensors as its outputs.")
    dtype = getattr(library, TORCH_DTYPES[spec.dtype])
    if value.dtype == library.bfloat16 and dtype == library.float32:
        value = value.to(dtype)
    fits = value.dim() == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        given = str(value.dtype).removeprefix("torch.")
        raise RunFailed(
            f"The output {spec.name} came as {given} {list(value.shape)}, but {spec.dtype} {list(spec.shape)} is "
            "what the model says, or its model.yaml for it."
        )
    plain = value.detach().cpu().contiguous()
    if plain.dtype == library.bfloat16:
        bits: np.ndarray[Any, Any] = plain.view(library.uint16).numpy()
        return bits.view(_BF16)
    array: np.ndarray[Any, Any] = plain.resolve_conj().resolve_neg().numpy()
    return array
