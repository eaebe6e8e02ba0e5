"""The work that every peer does, written once so that only the servers differ.

Peers run this in environments of their own, so it needs nothing but numpy, onnxruntime and Pillow.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

SIDE = 224
CROP = 224 / 256


def session(variable: str) -> ort.InferenceSession:
    """A session on one thread for the model file that the environment variable names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(os.environ[variable], options, providers=["CPUExecutionProvider"])


def decode(jpeg: bytes) -> np.ndarray[Any, Any]:
    """JPEG bytes -> float32 [3, 224, 224]: centre crop, bicubic resize, (x - 127) / 128."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    width, height = image.size
    side = min(width, height) * CROP
    left, top = (width - side) / 2, (height - side) / 2
    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = np.asarray(small, dtype=np.float32)
    return np.ascontiguousarray(((pixels - 127.0) / 128.0).transpose(2, 0, 1))


def top_five(logits: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Logits [1000] -> the five likeliest classes with their softmax scores."""
    exponents = np.exp(logits - logits.max())
    scores = exponents / exponents.sum()
    best = np.argsort(scores)[-5:][::-1]
    return [{"index": int(index), "score": float(scores[index])} for index in best]


class Tiny:
    """64 floats -> MatMul -> 10 floats."""

    def __init__(self) -> None:
        self._session = session("BENCH_TINY")

    def run(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """float32 [b, 64] -> float32 [b, 10]."""
        return self._session.run(None, {"x": rows})[0]

    def answer(self, floats: list[float]) -> dict[str, list[float]]:
        """One request: 64 floats -> {"outputs": 10 floats}."""
        return {"outputs": self.run(np.asarray([floats], dtype=np.float32))[0].tolist()}


class Classifier:
    """JPEG bytes -> EfficientNet-lite0 -> top five."""

    def __init__(self) -> None:
        self._session = session("BENCH_CLASSIFIER")

    def run(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """float32 [b, 3, 224, 224] -> logits float32 [b, 1000]."""
        return self._session.run(None, {"image": images})[0]

    def answer(self, jpeg: bytes) -> dict[str, list[dict[str, Any]]]:
        """One request: JPEG bytes -> {"predictions": [{"index", "score"} x 5]}."""
        return {"predictions": top_five(self.run(decode(jpeg)[None])[0])}
