"""Versions of one model, `x` FP32 [batch, 4] to `y`: good, failing at run time, slow to answer, slow to load."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FAILS_AT = 64
"""The failing version cannot answer an `x` that begins with this or more; it answers `x` times 2 otherwise."""


def failing() -> bytes:
    """Takes a row of a table by the first number of `x`; beyond the table's end it raises."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "axis"], ["first"]),
        helper.make_node("Cast", ["first"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["nothing"]),
        helper.make_node("Mul", ["x", "factor"], ["doubled"]),
        helper.make_node("Add", ["doubled", "nothing"], ["y"]),
    ]
    weights = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis": np.array([1]),
        "table": np.zeros(FAILS_AT, np.float32),
        "factor": np.array([2], np.float32),
    }
    return _model(nodes, weights)


def slow(rounds: int) -> bytes:
    """`x` times 2, after so many products of two 256 x 256 matrices, a fifth of a millisecond each or so."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "step"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [256, 256]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "nought"], ["nothing"]),
        helper.make_node("Add", ["nothing", "rounds"], ["times_f"]),
        helper.make_node("Cast", ["times_f"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "go", "start"], ["state"], body=body),
        helper.make_node("ReduceMax", ["state"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "two"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    weights = {
        "go": np.array(True),
        "start": np.eye(256, dtype=np.float32),
        "step": np.eye(256, dtype=np.float32),
        "nought": np.array(0, np.float32),
        "rounds": np.array(rounds, np.float32),
        "two": np.array(2, np.float32),
    }
    return _model(nodes, weights)


def heavy(megabytes: int) -> bytes:
    """`x` times 2, with this much of weights that are used but change nothing: it takes a while to load."""
    columns = 1024
    weight = np.zeros((4, columns), np.float32)
    ballast = (
        np.random.default_rng(0).random((megabytes << 18) // columns * columns, np.float32).reshape(columns, -1)
    )
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "ballast"], ["much"]),
        helper.make_node("ReduceMax", ["much"], ["nothing"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["x", "factor"], ["doubled"]),
        helper.make_node("Add", ["doubled", "nothing"], ["y"]),
    ]
    return _model(nodes, {"wide": weight, "ballast": ballast, "factor": np.array([2], np.float32)})


def _model(nodes: list[Any], weights: dict[str, Any]) -> bytes:
    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])

    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
