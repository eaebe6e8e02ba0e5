"""Small ONNX models whose answers are known, and one that takes as long as it is asked to."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def scale(factor: float = 2.0) -> bytes:
    """`x` FP32 [batch, 4] times `factor` is `y`."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    weights = {"factor": np.array([factor], np.float32)}
    return _model(nodes, [_floats("x", "batch", 4)], [_floats("y", "batch", 4)], weights)


def touchy(factor: float) -> bytes:
    """`x` FP32 [batch, 4] of zeros and ones, times `factor`, is `y`; its run fails where a number is larger."""
    nodes = [
        helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["answers", "place"], ["y"]),
    ]
    weights = {"answers": np.array([0, factor], np.float32)}
    return _model(nodes, [_floats("x", "batch", 4)], [_floats("y", "batch", 4)], weights)


def wide(columns: int) -> bytes:
    """`x` FP32 [batch, 1] in every column of `y`: an answer that takes a while to be written."""
    nodes = [helper.make_node("Mul", ["x", "ones"], ["y"])]
    weights = {"ones": np.ones((1, columns), np.float32)}
    return _model(nodes, [_floats("x", "batch", 1)], [_floats("y", "batch", columns)], weights)


def weigh(weight: float) -> bytes:
    """The sum of `x` FP32 [batch, 64] times a weight in each of 64 columns: bf16 makes another number of 1.003."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = {"w": np.full((64, 64), weight, np.float32)}
    return _model(nodes, [_floats("x", "batch", 64)], [_floats("y", "batch", 64)], weights)


def heavy(mebibytes: int) -> bytes:
    """As `scale`, with a table of that size beside it that each run looks into."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["most", "nothing"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["rows"]),
        helper.make_node("ReduceMax", ["rows"], ["factor"], axes=[2], keepdims=0),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    weights = {
        "nothing": np.array([0], np.float32),
        "table": np.full((mebibytes, 1 << 18), 2, np.float32),
    }
    return _model(nodes, [_floats("x", "batch", 4)], [_floats("y", "batch", 4)], weights)


def ratio() -> bytes:
    """`x` divided by itself: NaN where it is 0."""
    nodes = [helper.make_node("Div", ["x", "x"], ["y"])]
    return _model(nodes, [_floats("x", "batch", 2)], [_floats("y", "batch", 2)], {})


def counting() -> bytes:
    """`n` INT64 [batch, 1] as `y` FP32, after `n` products of two 256 x 256 matrices."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "step"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            _floats("state_in", 256, 256),
        ],
        [helper.make_tensor_value_info("go_out", TensorProto.BOOL, []), _floats("state_out", 256, 256)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["times"], keepdims=0),
        helper.make_node("Loop", ["times", "go", "start"], ["state"], body=body),
        helper.make_node("ReduceMax", ["state"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Cast", ["n"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["count", "nothing"], ["y"]),
    ]
    weights = {
        "go": np.array(True),
        "start": np.eye(256, dtype=np.float32),
        "step": np.eye(256, dtype=np.float32),
        "zero": np.array(0, np.float32),
    }
    inputs = [helper.make_tensor_value_info("n", TensorProto.INT64, ["batch", 1])]
    return _model(nodes, inputs, [_floats("y", "batch", 1)], weights)


def with_external_data(location: str) -> bytes:
    """`scale`, whose factor is said to lie in the file `location`."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            "g",
            [_floats("x", "batch", 4)],
            [_floats("y", "batch", 4)],
            [_external("factor", location)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


def _external(name: str, location: str) -> Any:
    tensor = numpy_helper.from_array(np.array([2], np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
