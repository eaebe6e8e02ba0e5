from __future__ import annotations

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest

from core.errors import BadRequest, InvalidInput
from core.media.oip_tensors import BINARY_ONLY, from_binary, from_json, read_shape, to_binary, to_json
from core.signature import NUMPY_DTYPES

NUMERIC = [name for name in NUMPY_DTYPES if name != "BYTES"]


def _limits(datatype: str) -> np.ndarray[Any, Any]:
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind in "iu":
        values = [np.iinfo(dtype).min, np.iinfo(dtype).max, 1, 0]
    elif dtype.kind == "b":
        values = [True, False, False, True]
    else:
        limits = ml_dtypes.finfo(dtype)
        values = [limits.min, limits.max, limits.smallest_subnormal, 0.5]
    return np.array(values, dtype).reshape(2, 2)


@pytest.mark.parametrize("datatype", NUMERIC)
def test_binary_numbers_come_back_bit_by_bit(datatype: str) -> None:
    array = _limits(datatype)
    data = bytes(to_binary(array))
    assert len(data) == 4 * array.itemsize
    back = from_binary("x", datatype, (2, 2), memoryview(data))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("datatype", [name for name in NUMERIC if name not in BINARY_ONLY])
def test_json_numbers_come_back_exactly(datatype: str) -> None:
    array = _limits(datatype)
    data = orjson.loads(orjson.dumps(to_json("y", array), option=orjson.OPT_SERIALIZE_NUMPY))
    back = from_json("x", datatype, (2, 2), data)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


def test_binary_is_little_endian_and_row_major() -> None:
    array = np.array([[1, 2], [3, 4]], np.int32).T
    assert bytes(to_binary(array)) == struct.pack("<4i", 1, 3, 2, 4)
    back = from_binary("x", "INT32", (2, 2), memoryview(struct.pack("<4i", 1, 3, 2, 4)))
    assert back.tolist() == [[1, 3], [2, 4]]


def test_binary_is_not_copied_where_it_is_aligned() -> None:
    data = bytearray(64)
    aligned = from_binary("x", "FP64", (2,), memoryview(data)[:16])
    assert np.shares_memory(aligned, np.frombuffer(data, np.uint8))
    shifted = from_binary("x", "FP64", (2,), memoryview(data)[1:17])
    assert shifted.flags.aligned


@pytest.mark.parametrize("size", [0, 7, 9, 12, 16])
def test_binary_of_another_size(size: int) -> None:
    with pytest.raises(InvalidInput, match=f"takes 8 bytes of binary data, but came with {size}"):
        from_binary("x", "FP32", (2,), memoryview(bytes(size)))


def test_bool_is_one_byte_of_0_or_1() -> None:
    assert bytes(to_binary(np.array([True, False]))) == b"\x01\x00"
    assert from_binary("x", "BOOL", (2,), memoryview(b"\x01\x00")).tolist() == [True, False]
    with pytest.raises(InvalidInput, match="each byte of its binary data must be 0 or 1"):
        from_binary("x", "BOOL", (2,), memoryview(b"\x01\x02"))


def test_bytes_have_their_length_before_them() -> None:
    array = np.array(["", "é", b"z"], object)
    data = b"\0\0\0\0" + b"\2\0\0\0\xc3\xa9" + b"\1\0\0\0z"
    assert to_binary(array) == data
    assert from_binary("x", "BYTES", (3, 1), memoryview(data)).tolist() == [[""], ["é"], ["z"]]


@pytest.mark.parametrize(
    "data",
    [b"", b"\1\0\0\0", b"\1\0\0", b"\2\0\0\0a", b"\1\0\0\0a\0", b"\1\0\0\0a" * 2, b"\xff\xff\xff\xffa"],
)
def test_bytes_that_do_not_add_up(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="does not hold 1 BYTES elements"):
        from_binary("x", "BYTES", (1,), memoryview(data))


def test_bytes_that_a_shape_alone_promises_cost_nothing() -> None:
    with pytest.raises(InvalidInput, match="does not hold"):
        from_binary("x", "BYTES", (2**31 - 1, 2**31 - 1), memoryview(b"\0\0\0\0" * 8))


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        from_binary("x", "BYTES", (1,), memoryview(b"\1\0\0\0\xff"))
    with pytest.raises(BadRequest, match="ask for it as binary data"):
        to_json("y", np.array([b"\xff"], object))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "BYTES", "BF16"])
def test_tensors_without_elements(datatype: str, shape: tuple[int, ...]) -> None:
    assert from_binary("x", datatype, shape, memoryview(b"")).shape == shape
    if datatype not in BINARY_ONLY:
        assert from_json("x", datatype, shape, []).shape == shape
    empty = np.empty(shape, NUMPY_DTYPES[datatype])
    assert bytes(to_binary(empty)) == b""


def test_scalars() -> None:
    assert from_json("x", "FP32", (), [2]).shape == ()
    assert from_binary("x", "INT16", (), memoryview(b"\1\0")).item() == 1
    assert orjson.dumps(to_json("y", np.array(2.5)), option=orjson.OPT_SERIALIZE_NUMPY) == b"[2.5]"


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT32", [1.0]),
        ("INT32", [1.5]),
        ("INT32", ["1"]),
        ("INT32", [None]),
        ("INT32", [2**31]),
        ("UINT8", [-1]),
        ("UINT8", [256]),
        ("UINT64", [2**64]),
        ("UINT64", [-1, 2**63]),
        ("INT64", [2**63]),
        ("BOOL", [1]),
        ("BOOL", ["true"]),
        ("FP32", ["1"]),
        ("FP32", [True]),
        ("FP32", [None]),
        ("FP32", [1e39]),
        ("FP32", [{}]),
        ("FP64", [[1, 2], [3]]),
        ("BYTES", [1]),
        ("BYTES", ["a", None]),
        ("BYTES", [["a"], ["b", "c"]]),
    ],
)
def test_json_values_of_another_kind(datatype: str, data: Any) -> None:
    with pytest.raises(InvalidInput, match=f"The `data` of input 'x' is not {datatype}"):
        from_json("x", datatype, (len(data),), data)


@pytest.mark.parametrize(
    ("datatype", "data", "values"),
    [
        ("UINT64", [2**64 - 1, 1], [2**64 - 1, 1]),
        ("FP32", [1, 2.5], [1.0, 2.5]),
        ("FP64", [10**30], [1e30]),
        ("BYTES", [["a"], ["b"]], ["a", "b"]),
        ("INT8", [[1], [2]], [1, 2]),
    ],
)
def test_json_values_of_the_right_kind(datatype: str, data: Any, values: list[Any]) -> None:
    assert from_json("x", datatype, (len(values),), data).tolist() == values


def test_not_a_number_is_null() -> None:
    array = np.array([1, math.nan, math.inf, -math.inf])
    assert orjson.dumps(to_json("y", array), option=orjson.OPT_SERIALIZE_NUMPY) == b"[1.0,null,null,null]"


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_what_json_cannot_carry(datatype: str) -> None:
    with pytest.raises(BadRequest, match="send it as binary data"):
        from_json("x", datatype, (1,), [1])
    with pytest.raises(BadRequest, match="ask for it as binary data"):
        to_json("y", np.zeros(1, NUMPY_DTYPES[datatype]))


@pytest.mark.parametrize("value", [None, 4, "4", [1.0], ["4"], [True], [-1], [2**31], [1] * 33])
def test_shapes_that_are_none(value: Any) -> None:
    with pytest.raises(BadRequest, match="The `shape` of input 'x'"):
        read_shape("x", value)


def test_shapes() -> None:
    assert read_shape("x", []) == ()
    assert read_shape("x", [0, 2**31 - 1]) == (0, 2**31 - 1)
