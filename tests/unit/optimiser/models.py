"""Small real networks: with layers that can be quantised, and with what only looks like them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from tests.unit.engines.models import save, value

RANDOM = np.random.default_rng(3)


def pictures(folder: Path) -> Path:
    """`x` FP32 [batch, 3, 16, 16] through three convolutions, one of them by channel, to ten scores `y`."""
    weights = {
        "w1": RANDOM.normal(0, 0.3, (8, 3, 3, 3)),
        "b1": RANDOM.normal(0, 0.1, 8),
        "w2": RANDOM.normal(0, 0.3, (8, 1, 3, 3)),
        "b2": RANDOM.normal(0, 0.1, 8),
        "w3": RANDOM.normal(0, 0.3, (10, 8)),
        "b3": RANDOM.normal(0, 0.1, 10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "r1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "c2", group=8),
        helper.make_node("Relu", ["c2"], ["r2"], "r2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "p"),
        helper.make_node("Flatten", ["p"], ["f"], "f"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "g", transB=1),
    ]
    return _save(folder, nodes, (-1, 3, 16, 16), (-1, 10), weights)


def sensitive_start(folder: Path) -> Path:
    """As `pictures`, deeper, and its first layers hold numbers of very different sizes, which 8 bits blur."""
    random = np.random.default_rng(4)
    sizes = np.array([100, 1, 1, 1, 1, 1, 1, 1], np.float32)
    weights: dict[str, Any] = {"w0": random.normal(0, 0.3, (8, 3, 3, 3)) * sizes[:, None, None, None]}
    nodes, last = [helper.make_node("Conv", ["x", "w0"], ["c0"], "c0", pads=[1, 1, 1, 1])], "c0"
    for i in range(1, 7):
        weights[f"w{i}"] = random.normal(0, 0.3, (8, 8, 1, 1)) / (sizes[None, :, None, None] if i == 1 else 1)
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], f"c{i}"))
        last = f"c{i}"
    weights["w7"] = random.normal(0, 0.3, (10, 8))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "p"),
        helper.make_node("Flatten", ["p"], ["f"], "f"),
        helper.make_node("Gemm", ["f", "w7"], ["y"], "g", transB=1),
    ]
    return _save(folder, nodes, (-1, 3, 16, 16), (-1, 10), weights)


def deep(folder: Path, seed: int = 6) -> Path:
    """`x` FP32 [batch, 3, 16, 16] through six convolutions of 24 channels, of all kinds, to scores `y`."""
    random = np.random.default_rng(seed)
    weights: dict[str, Any] = {}
    nodes, last, width = [], "x", 3
    for i in range(6):
        shape = (24, 1, 3, 3) if i % 2 else (24, width, 3, 3) if i == 4 else (24, width, 1, 1)
        weights[f"w{i}"] = random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        weights[f"b{i}"] = random.normal(0.2, 0.2, 24)
        groups = {"group": 24} if i % 2 else {}
        nodes.append(helper.make_node("Conv", [last, f"w{i}", f"b{i}"], [f"c{i}"], f"c{i}", **groups))
        nodes.append(helper.make_node("Clip", [f"c{i}", "low", "high"], [f"r{i}"], f"r{i}"))
        last, width = f"r{i}", 24
    weights |= {"low": np.array(0.0), "high": np.array(6.0), "w6": random.normal(0, 0.3, (10, 24))}
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "p"),
        helper.make_node("Flatten", ["p"], ["f"], "f"),
        helper.make_node("Gemm", ["f", "w6"], ["y"], "g", transB=1),
    ]
    return _save(folder, nodes, (-1, 3, 16, 16), (-1, 10), weights)


def products(folder: Path) -> Path:
    """`x` FP32 [batch, 32] times two matrices."""
    weights = {"w1": RANDOM.normal(0, 0.2, (32, 64)), "w2": RANDOM.normal(0, 0.2, (64, 8))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "m1"),
        helper.make_node("Relu", ["h"], ["r"], "r"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "m2"),
    ]
    return _save(folder, nodes, (-1, 32), (-1, 8), weights)


def doubles(folder: Path) -> Path:
    """A matrix product as any other to look at, but of 64-bit floats."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    weights = [numpy_helper.from_array(RANDOM.normal(0, 1, (4, 4)), "w")]
    return save(folder, nodes, [value("x", "FP64", (-1, 4))], [value("y", "FP64", (-1, 4))], weights)


def _save(folder: Path, nodes: list[Any], taken: Any, given: Any, weights: dict[str, Any]) -> Path:
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    return save(folder, nodes, [value("x", "FP32", taken)], [value("y", "FP32", given)], tensors)


def feeds(count: int, *shape: int) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(5)
    for _ in range(count):
        yield {"x": random.normal(0.3, 1, (1, *shape)).astype(np.float32)}
