"""One tensor as the Open Inference Protocol v2 carries it: JSON values, or little-endian bytes, row by row.

In binary, BOOL is one byte, BYTES is a 4-byte length before each element, everything else has its own width; see
the protocol's "Binary Tensor Data" extension. BYTES elements are text here, as ONNX strings are: UTF-8 in binary.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from core.errors import BadRequest, InvalidInput
from core.signature import NUMPY_DTYPES, dtype_name

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

BINARY_ONLY: Final = frozenset({"FP16", "BF16"})
"""Datatypes that the protocol has no JSON for."""
MAX_DIMENSIONS: Final = 32
MAX_SIDE: Final = (1 << 31) - 1
_LENGTH_BYTES: Final = 4


def read_shape(name: str, value: Any) -> Shape:
    """The shape of input `name` as it came in JSON. Raises BadRequest."""
    if not isinstance(value, list) or not all(type(side) is int for side in value):
        raise BadRequest(f"The `shape` of input {name!r} must be a list of whole numbers.")
    if len(value) > MAX_DIMENSIONS:
        raise BadRequest(f"The `shape` of input {name!r} has more than {MAX_DIMENSIONS} dimensions.")
    for side in value:
        if not 0 <= side <= MAX_SIDE:
            raise BadRequest(
                f"The `shape` of input {name!r} has a dimension of {side}: 0 to {MAX_SIDE} are possible."
            )
    return tuple(value)


def from_binary(name: str, datatype: str, shape: Shape, data: memoryview) -> Array:
    """An array of `shape` over `data`, read-only and without a copy where the memory is aligned.

    Raises InvalidInput when the bytes are not exactly those of the shape and datatype.
    """
    if datatype == "BYTES":
        return _texts(_read_elements(name, shape, data), shape)
    dtype = NUMPY_DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(
            f"Input {name!r} of shape {list(shape)} and datatype {datatype} takes {expected} bytes of binary "
            f"data, but came with {len(data)}."
        )
    if datatype == "BOOL" and expected and np.frombuffer(data, np.uint8).max() > 1:
        raise InvalidInput(f"Input {name!r} is BOOL: each byte of its binary data must be 0 or 1.")
    array = _shaped(name, np.frombuffer(data, dtype), shape)
    return array if array.flags.aligned else array.copy()


def from_json(name: str, datatype: str, shape: Shape, data: Any) -> Array:
    """An array of `shape` from `data`, flat or nested, in row-major order. Raises BadRequest or InvalidInput."""
    if datatype in BINARY_ONLY:
        raise BadRequest(f"Input {name!r} is {datatype}, which JSON cannot carry: send it as binary data.")
    if not isinstance(data, list):
        raise BadRequest(f"The `data` of input {name!r} must be a list.")
    try:
        array = _strings(data) if datatype == "BYTES" else _numbers(data, NUMPY_DTYPES[datatype])
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(
            f"The `data` of input {name!r} is not {datatype}: a value is of another type or out of range, or the "
            "rows differ in length."
        ) from error
    if array.size != math.prod(shape):
        raise InvalidInput(
            f"Input {name!r} of shape {list(shape)} takes {math.prod(shape)} values, but came with {array.size}."
        )
    return _shaped(name, array, shape)


def to_binary(array: Array) -> bytes | memoryview:
    """The elements as little-endian bytes in row-major order."""
    if dtype_name(array.dtype) == "BYTES":
        return b"".join(_with_length(item) for item in array.reshape(-1).tolist())
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_json(name: str, array: Array) -> Any:
    """The elements, flat, for a JSON writer that knows NumPy and writes NaN and infinities as null.

    Raises BadRequest where JSON cannot carry them.
    """
    datatype = dtype_name(array.dtype)
    if datatype in BINARY_ONLY:
        raise BadRequest(f"Output {name!r} is {datatype}, which JSON cannot carry: ask for it as binary data.")
    if datatype != "BYTES":
        return np.ascontiguousarray(array).reshape(-1)
    try:
        return [item if isinstance(item, str) else str(item, "utf-8") for item in array.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise BadRequest(f"Output {name!r} holds bytes that are not text: ask for it as binary data.") from error


def _shaped(name: str, array: Array, shape: Shape) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:  # no elements, but sides whose product no array can have
        raise InvalidInput(f"Input {name!r} of shape {list(shape)} is too large.") from error


def _numbers(data: list[Any], dtype: np.dtype[Any]) -> Array:
    """Nothing is rounded, cut or guessed: whole numbers stay whole, and texts and nulls are no numbers."""
    found = np.array(data)
    if not found.size:
        return np.empty(0, dtype)
    if dtype.kind == "f":
        return _floats(found, dtype)
    if dtype.kind == "b":
        if found.dtype.kind != "b":
            raise TypeError("not booleans")
        return found
    if found.dtype.kind not in "iu":
        # Whole numbers beyond INT64 are found as floats or objects.
        found = np.array(data, dtype=np.object_).reshape(-1)
        if any(type(value) is not int for value in found):
            raise TypeError("not whole numbers")
    limits = np.iinfo(dtype)
    if found.min() < limits.min or found.max() > limits.max:
        raise OverflowError("out of range")
    return found.astype(dtype)


def _floats(found: Array, dtype: np.dtype[Any]) -> Array:
    if found.dtype.kind not in "iufO" or not _only_numbers(found):
        raise TypeError("not numbers")
    with np.errstate(over="ignore"):
        array = found.astype(dtype)
    if not np.isfinite(array).all():  # JSON has no infinity, so this one was made here
        raise OverflowError("out of range")
    return array


def _only_numbers(found: Array) -> bool:
    # Whole numbers beyond 64 bits are found as objects.
    return found.dtype.kind != "O" or all(type(value) in (int, float) for value in found.reshape(-1))


def _strings(data: list[Any]) -> Array:
    flat = data if all(type(item) is str for item in data) else _leaves(data)
    return _texts(flat, (len(flat),))


def _leaves(data: list[Any]) -> list[str]:
    array = np.array(data, dtype=np.object_)
    leaves: list[Any] = array.reshape(-1).tolist()
    if any(type(item) is not str for item in leaves):
        raise TypeError("not strings")
    return leaves


def _texts(items: list[str], shape: Shape) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array.reshape(shape)


def _read_elements(name: str, shape: Shape, data: memoryview) -> list[str]:
    count, size, at = math.prod(shape), len(data), 0
    items: list[str] = []
    if count * _LENGTH_BYTES <= size:  # so that a shape alone cannot make this loop long
        for _ in range(count):
            start = at + _LENGTH_BYTES
            at = start + int.from_bytes(data[at:start], "little")
            if at > size:
                break
            items.append(_text(name, data[start:at]))
    if len(items) != count or at != size:
        raise InvalidInput(
            f"The binary data of input {name!r} does not hold {count} BYTES elements, each after its "
            "length of 4 bytes."
        )
    return items


def _text(name: str, data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Input {name!r} has a BYTES element that is not UTF-8 text.") from error


def _with_length(item: Any) -> bytes:
    data = item if isinstance(item, bytes) else str(item).encode()
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data
