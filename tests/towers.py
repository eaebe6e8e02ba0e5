"""A small two-tower model of made-up weights: it knows colours, and the words for them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests import text_models
from tests.servers import zip_bytes

COLOURS = ["red", "green", "blue"]
WORDS = ["a", "photo", "of", *COLOURS]
LABELS = ["red", "green", "blue"]


def image_tower() -> bytes:
    """`images` float32 [batch, 3, 8, 8] -> `image_embeds` [batch, 3]: the mean colour, less its mean."""
    less = np.eye(3, dtype=np.float32) - 1 / 3
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "less"], ["image_embeds"]),
    ]
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(less, "less")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def table(size: int = 3) -> np.ndarray[Any, Any]:
    """A vector a token: those of colours along their axes, the others nothing."""
    values = np.zeros((len(text_models.SPECIAL) + len(WORDS), size), np.float32)
    for index, colour in enumerate(COLOURS):
        values[len(text_models.SPECIAL) + WORDS.index(colour), index] = 2.0
    return values


def text_tower(size: int = 3) -> bytes:
    """`input_ids` -> `output` [batch, size]: the sum over a text's words."""
    return text_models.lookup_model(table(size), inputs=("input_ids",), pooled=True)


def manifest(**text: Any) -> dict[str, Any]:
    """With the labels of LABELS, unless others are given."""
    return {
        "task": "zero-shot-image-classification",
        "model": "image.onnx",
        "labels": LABELS,
        "preprocess": {"resize": {"mode": "stretch"}},
        "postprocess": {"scale": 10.0, "text": {"model": "text.onnx", **text}},
    }


def files(**other: bytes) -> dict[str, bytes]:
    """The package's, but for the manifest."""
    made = {"image.onnx": image_tower(), "text.onnx": text_tower()}
    return {**made, "tokenizer.json": text_models.tokenizer(WORDS).to_str().encode(), **other}


def unpacked(folder: Path, **other: bytes) -> Path:
    """The same in a folder."""
    for name, content in files(**other).items():
        (folder / name).write_bytes(content)
    return folder


def package(described: Mapping[str, Any] | None = None, **other: bytes) -> bytes:
    """A zip as it is uploaded."""
    return zip_bytes({**files(**other), "model.yaml": yaml.safe_dump(dict(described or manifest()))})


def picture(*colour: int) -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(out, "PNG")
    return out.getvalue()
