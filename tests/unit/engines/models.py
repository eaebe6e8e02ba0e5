"""Small models of each format: y = 2x, of any dtype and shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import whisper_models

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def doubling(folder: Path, dtype: str = "FP32", shape: Sequence[int] = (-1, 3)) -> Path:
    inputs, outputs = [value("x", dtype, shape)], [value("y", dtype, shape)]
    if dtype in ("BOOL", "BYTES"):
        return save(folder, [helper.make_node("Identity", ["x"], ["y"])], inputs, outputs)
    return save(folder, [helper.make_node("Add", ["x", "x"], ["y"])], inputs, outputs)


def fake(folder: Path, dtype: str = "FP32", shape: Sequence[int] = (-1, 3), **fields: Any) -> Path:
    spec = {"dtype": dtype, "shape": list(shape)}
    signature = {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y", **spec}]}
    path = folder / "model.json"
    path.write_text(json.dumps({"signature": signature, "latency_ms": 0, **fields}))
    return path


def save(
    folder: Path, nodes: Sequence[Any], inputs: Any, outputs: Any, initializers: Any = (), **how: Any
) -> Path:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path), **how)
    return path


def value(name: str, dtype: str, shape: Sequence[int | str]) -> Any:
    dims = [f"n{place}" if size == -1 else size for place, size in enumerate(shape)]
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], dims)


def big(folder: Path, megabytes: int, **how: Any) -> Path:
    """y = x · w, with so many megabytes of random weights."""
    weights = np.random.default_rng(0).random((megabytes << 18) // 1024 * 1024, np.float32).reshape(1024, -1)
    return save(
        folder,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", "FP32", (-1, 1024))],
        [value("y", "FP32", (-1, weights.shape[1]))],
        [numpy_helper.from_array(weights, "w")],
        **how,
    )


def fake_big(folder: Path, megabytes: int) -> Path:
    return fake(folder, memory_bytes=megabytes << 20)


def whisper(folder: Path, dtype: str = "FP32", shape: Sequence[int] = ()) -> Path:
    return whisper_models.loudest(folder)


def whisper_big(folder: Path, megabytes: int) -> Path:
    return whisper_models.loudest(folder, inner=megabytes << 13)


def ir_doubling(folder: Path, dtype: str = "FP32", shape: Sequence[int] = (-1, 3)) -> Path:
    return to_ir(doubling(folder, dtype, shape))


def ir_big(folder: Path, megabytes: int) -> Path:
    return to_ir(big(folder, megabytes))


def to_ir(path: Path) -> Path:
    """OpenVINO's own files of an ONNX model, `.xml` and `.bin`."""
    import openvino

    result = path.with_suffix(".xml")
    openvino.save_model(openvino.Core().read_model(path), result, compress_to_fp16=False)
    path.unlink()
    return result
