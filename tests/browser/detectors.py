"""Detectors whose answers are known: small enough to be checked, searched for and served within a test."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.servers import zip_bytes

GREY: Final = (128, 128, 128)
_SIDE: Final = 32
_MANIFEST = """
task: object-detection
model: model.onnx
labels: labels.txt
preprocess: {resize: {mode: stretch}}
postprocess: {layout: rows, score_threshold: 0.1}
"""
Box = tuple[float, float, float, float]


def detector(found: Sequence[tuple[str, Box]]) -> bytes:
    """A package whose model finds these labels in every picture; boxes are fractions of its width and height.

    The scores are 0.9, 0.8 and so on. It looks at the picture (a mean, and a product of matrices), to no effect.
    """
    rows = [[*(side * _SIDE for side in box), 0.9 - 0.1 * number, number] for number, (_, box) in enumerate(found)]
    files = {
        "model.onnx": _model(np.asarray(rows, np.float32)),
        "model.yaml": _MANIFEST,
        "labels.txt": "\n".join(label for label, _ in found),
    }
    return zip_bytes(files)


def grey_photo(width: int, height: int) -> bytes:
    """A PNG in which nothing but what is drawn over it has a colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), GREY).save(file, "PNG")
    return file.getvalue()


def _model(rows: np.ndarray) -> bytes:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "nothing", "rows"], ["known"]),
        helper.make_node("Reshape", ["known", "shape"], ["head"]),
    ]
    weights = {
        "nothing": np.zeros((3, rows.size), np.float32),
        "rows": rows.reshape(-1),
        "shape": np.array([-1, *rows.shape], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("head", TensorProto.FLOAT, ["batch", *rows.shape])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return made
