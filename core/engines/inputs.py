"""Whether a batch fits a model, said alike for every engine that is not told so by its library."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.engines.base import Tensors
from core.errors import RunFailed
from core.signature import NUMPY_DTYPES, Signature, TensorSpec


def ordered(inputs: Tensors, signature: Signature) -> list[np.ndarray[Any, Any]]:
    """The arrays in the model's own order, each of its dtype and shape; nothing is cast.

    Raises RunFailed with the first input that is missing, unknown, or of another dtype or shape.
    """
    for spec in signature.inputs:
        if spec.name not in inputs:
            raise RunFailed(f"The input {spec.name} is missing.")
        _check(inputs[spec.name], spec)
    if len(inputs) > len(signature.inputs):
        known = {spec.name for spec in signature.inputs}
        unknown = next(name for name in inputs if name not in known)
        raise RunFailed(f"The model has no input {unknown[:80]}.")
    return [inputs[spec.name] for spec in signature.inputs]


def _check(value: np.ndarray[Any, Any], spec: TensorSpec) -> None:
    if value.dtype != NUMPY_DTYPES[spec.dtype]:
        raise RunFailed(f"The input {spec.name} must be {spec.dtype}.")
    fits = len(value.shape) == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, value.shape, strict=True)
    )
    if not fits:
        raise RunFailed(f"The input {spec.name} must have shape {list(spec.shape)}, not {list(value.shape)}.")
