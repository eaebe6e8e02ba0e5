"""Tensors to and from JSON, guided by a model's signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from core.errors import InvalidInput
from core.signature import NUMPY_DTYPES, Signature, TensorSpec, dtype_name

_BF16: Final = NUMPY_DTYPES["BF16"]


def tensors_from_json(value: Any, signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """Read `inputs` of a JSON call: `{name: nested lists}`, `[{name, data, shape?}]`, or, for a model with one
    input, the nested lists alone. Dtypes come from the signature. Raises InvalidInput.
    """
    inputs = signature.inputs
    if len(inputs) == 1 and type(value) is dict and len(value) == 1 and inputs[0].name in value:
        return {inputs[0].name: _array(value[inputs[0].name], inputs[0])}
    specs = {spec.name: spec for spec in inputs}
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            return dict(_named(item, specs) for item in value)
        if len(specs) == 1:
            value = {next(iter(specs)): value}
    if not isinstance(value, dict):
        raise InvalidInput(f"`inputs` must hold the inputs by name: {', '.join(specs)}.")
    return {name: _array(data, _spec(name, specs)) for name, data in value.items()}


def tensors_to_json(outputs: Mapping[str, np.ndarray[Any, Any]]) -> list[dict[str, Any]]:
    """Write outputs as `[{name, dtype, shape, data}]`, `data` flat in row-major order.

    Arrays stay arrays where the JSON writer takes them as they are; NaN and infinities become null there.
    """
    return [
        {"name": name, "dtype": dtype_name(array.dtype), "shape": list(array.shape), "data": _flat(array)}
        for name, array in outputs.items()
    ]


def _flat(array: np.ndarray[Any, Any]) -> Any:
    flat = array.reshape(-1)
    if array.dtype == _BF16:
        return flat.astype(np.float32)  # the JSON writer does not know it
    if array.dtype.kind not in "SUO":
        return flat if flat.flags.c_contiguous else np.ascontiguousarray(flat)
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in flat.tolist()]


def _spec(name: Any, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    spec = specs.get(name) if isinstance(name, str) else None
    if spec is None:
        raise InvalidInput(f"Input {str(name)[:64]!r} is not known; the model takes {', '.join(specs)}.")
    return spec


def _named(item: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> tuple[str, np.ndarray[Any, Any]]:
    spec = _spec(item.get("name"), specs)
    array = _array(item.get("data"), spec)
    shape = item.get("shape")
    if shape is None:
        return spec.name, array
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InvalidInput(
            f"The shape of input {spec.name!r} must be a list of whole numbers that are not negative."
        )
    count = 1
    for n in shape:
        count *= n
    if count != array.size:
        raise InvalidInput(f"Input {spec.name!r} has {array.size} values, but its shape {shape} wants {count}.")
    return spec.name, array.reshape(shape)


def _array(data: Any, spec: TensorSpec) -> np.ndarray[Any, Any]:
    dtype = NUMPY_DTYPES.get(spec.dtype)
    if dtype is None:
        raise InvalidInput(f"Input {spec.name!r} is {spec.dtype}, which JSON cannot carry.")
    try:
        if dtype.kind == "f" or dtype == _BF16:
            array = np.array(data, dtype=dtype)
        elif dtype.kind == "O":
            return _strings(data, spec)
        else:
            array = _exact(data, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"Input {spec.name!r} must be {spec.dtype} of shape {list(spec.shape)}: "
            "its values are of another type, out of range, or its rows differ in length."
        ) from error
    return array


def _exact(data: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Whole numbers and booleans are never rounded into place."""
    found = np.array(data)
    if found.size and found.dtype.kind not in ("b" if dtype.kind == "b" else "iu"):
        raise ValueError("not of this kind")
    array = np.array(data, dtype=dtype)
    if found.size and not np.array_equal(found, array):
        raise OverflowError("out of range")
    return array


def _strings(data: Any, spec: TensorSpec) -> np.ndarray[Any, Any]:
    array = np.array(data, dtype=np.object_)
    for item in array.reshape(-1):
        if not isinstance(item, str):
            raise InvalidInput(f"Input {spec.name!r} must hold strings.")
    return array
