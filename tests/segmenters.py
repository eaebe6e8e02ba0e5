"""Small segmenters with weights made up here, and what the tests of both kinds share."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

DEMO_IMAGES = Path(__file__).parents[1] / "demo" / "images"
SIDE, CLASSES, WEIGHTS = 64, 5, 8


def save(path: Path, nodes: list[Any], outputs: dict[str, list[Any]], weights: dict[str, Any]) -> Path:
    """A model of one input `images` float32 [batch, 3, 64, 64]."""
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def semantic_model(path: Path) -> Path:
    """Which of five colours 4 x 4 pixels are nearest to, in the mean: `logits` [batch, 5, 16, 16]."""
    colours = np.array([[150, 85, 40], [215, 200, 190], [100, 95, 95], [60, 25, 10], [130, 35, 20]], np.float32)
    kernel = np.broadcast_to((2 * colours / 16)[:, :, None, None], (CLASSES, 3, 4, 4)).astype(np.float32)
    node = helper.make_node("Conv", ["images", "kernel", "bias"], ["logits"], strides=[4, 4])
    weights = {"kernel": kernel / 1000, "bias": -(colours**2).sum(axis=1) / 1000}
    return save(path, [node], {"logits": ["batch", CLASSES, 16, 16]}, weights)


def kernels(chance: np.random.Generator, count: int, side: int) -> np.ndarray:
    """That answer to differences between pixels, not to how bright they are."""
    made = chance.standard_normal((count, 3, side, side))
    return ((made - made.mean(axis=(1, 2, 3), keepdims=True)) / 400).astype(np.float32)


def instance_model(path: Path) -> Path:
    """As YOLOv8's: `output0` [batch, 4 + 5 + 8, 64], `output1` [batch, 8, 16, 16]."""
    chance = np.random.default_rng(4)
    values = 4 + CLASSES
    weights = {
        "head_kernel": kernels(chance, values, 8),
        "weight_kernel": kernels(chance, WEIGHTS, 8),
        "mask_kernel": kernels(chance, WEIGHTS, 4),
        "range": np.array([SIDE, SIDE, 40, 40] + [1] * CLASSES, np.float32).reshape(1, values, 1),
        "rows": np.array([0, values, -1], np.int64),
        "weight_rows": np.array([0, WEIGHTS, -1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "head_kernel"], ["head"], strides=[8, 8]),
        helper.make_node("Reshape", ["head", "rows"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["shares"]),
        helper.make_node("Mul", ["shares", "range"], ["boxes"]),
        helper.make_node("Conv", ["images", "weight_kernel"], ["raw_weights"], strides=[8, 8]),
        helper.make_node("Reshape", ["raw_weights", "weight_rows"], ["weights"]),
        helper.make_node("Concat", ["boxes", "weights"], ["output0"], axis=1),
        helper.make_node("Conv", ["images", "mask_kernel"], ["output1"], strides=[4, 4]),
    ]
    outputs = {"output0": ["batch", values + WEIGHTS, 64], "output1": ["batch", WEIGHTS, 16, 16]}
    return save(path, nodes, outputs, weights)


def pictures() -> list[bytes]:
    """Photos and crops, upright and not, larger and smaller than what the models see."""
    found = []
    for name, size, format in (
        ("coffee", (600, 400), "JPEG"),
        ("chelsea", (451, 300), "PNG"),
        ("rocket", (40, 90), "PNG"),
        ("astronaut", (901, 333), "PNG"),
        ("coffee", (1, 7), "PNG"),
    ):
        image, out = Image.open(DEMO_IMAGES / f"{name}.jpg").convert("RGB").resize(size), io.BytesIO()
        image.save(out, format, **({"quality": 95} if format == "JPEG" else {}))
        found.append(out.getvalue())
    return found


def seen(data: bytes) -> tuple[np.ndarray, Image.Image]:
    """What the models are given, by Pillow alone, and the image."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    return small.transpose(2, 0, 1)[None], image


def enlarged(planes: np.ndarray, image: Image.Image) -> np.ndarray:
    """Planes [n, h, w] in the size of the image, by PyTorch."""
    tensor = torch.from_numpy(np.ascontiguousarray(planes))[None]
    size = (image.height, image.width)
    return torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0].numpy()


def from_png(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def from_runs(runs: dict[str, list[int]]) -> np.ndarray:
    height, width = runs["size"]
    return np.repeat(np.arange(len(runs["counts"])) % 2, runs["counts"]).reshape(width, height).T.astype(bool)


def detector(path: Path, layout: str) -> Path:
    """The boxes of `instance_model` alone: `output0` [batch, 4 + 5, 64], or as YOLOv5's [batch, 64, 4 + 1 + 5]."""
    chance = np.random.default_rng(4)
    values = 4 + CLASSES + (layout == "yolov5")
    spans = [SIDE, SIDE, 40, 40] + [1] * (values - 4)
    weights = {
        "kernel": kernels(chance, values, 8),
        "range": np.array(spans, np.float32).reshape(1, values, 1),
        "rows": np.array([0, values, -1], np.int64),
    }
    last = "boxes" if layout == "yolov5" else "output0"
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["head"], strides=[8, 8]),
        helper.make_node("Reshape", ["head", "rows"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["shares"]),
        helper.make_node("Mul", ["shares", "range"], [last]),
    ]
    if layout == "yolov5":
        nodes.append(helper.make_node("Transpose", ["boxes"], ["output0"], perm=[0, 2, 1]))
    shape: list[int | str] = ["batch", 64, values] if layout == "yolov5" else ["batch", values, 64]
    return save(path, nodes, {"output0": shape}, weights)
