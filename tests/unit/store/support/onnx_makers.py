"""Tiny ONNX models and packages for tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model_proto(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = more.pop("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def matmul(batch: int | str = "batch", *, seed: int = 0, external: str | None = None) -> Any:
    """`x` [batch, 4] times `w` [4, 3] is `y` [batch, 3]; the weights may be said to lie in another file."""
    weights = np.random.default_rng(seed).random((4, 3), dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_proto([node], [floats("x", batch, 4)], [floats("y", batch, 3)], {"w": weights})
    if external is not None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", "48")):
            tensor.external_data.add(key=key, value=value)
    return model


def onnx_bytes(**options: Any) -> bytes:
    return matmul(**options).SerializeToString()


def zip_bytes(files: Mapping[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def is_onnx(data: bytes) -> bool:
    onnx.checker.check_model(onnx.load_model_from_string(data))
    return True
