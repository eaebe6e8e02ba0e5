"""Models for the protocol's tests: what goes in comes out, of every datatype."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
FIRST_MANY = tuple(name for name in ONNX_TYPES if name != "BF16")


def _value(name: str, datatype: str, shape: list[int | str]) -> Any:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    opsets = [helper.make_opsetid("", 17)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return data


def identity(*datatypes: str) -> bytes:
    """`in_FP32` [n, 2] -> `out_FP32` [n, 2], and so on for each datatype, in this order."""
    return _model(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in datatypes],
        [_value(f"in_{name}", name, ["n", 2]) for name in datatypes],
        [_value(f"out_{name}", name, ["n", 2]) for name in datatypes],
    )


def times(factor: float, shape: list[int | str] | None = None) -> bytes:
    """`x` FP32 times `factor` is `y`; of shape [n, 4] unless told."""
    shape = shape or ["n", 4]
    weight = numpy_helper.from_array(np.array(factor, dtype=np.float32), "w")
    return _model(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [_value("x", "FP32", shape)],
        [_value("y", "FP32", shape)],
        [weight],
    )


def bf16_to_fp32() -> bytes:
    """`x` BF16 [n, 2] -> `y` FP32 [n, 2]."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    return _model([node], [_value("x", "BF16", ["n", 2])], [_value("y", "FP32", ["n", 2])])
