"""Weights that bfloat16 holds, and answers that stay as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from core.errors import ConversionFailed
from core.optimiser.conversion import convert
from core.optimiser.moments import input_moments
from core.optimiser.rounding import compensated, to_bf16
from tests.unit.engines.models import save, value
from tests.unit.optimiser import models
from tests.unit.optimiser.test_conversion import PICTURE, answers


def _weights(path: Path) -> list[Any]:
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


def _rounded(source: Path, target: Path) -> Path:
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        nearest = to_bf16(numpy_helper.to_array(tensor)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(nearest, tensor.name))
    onnx.save(model, target)
    return target


def test_the_nearest_values_have_eight_bits() -> None:
    exact = np.array([1 + 1 / 128, -3.0, 0.0, 6.0])
    np.testing.assert_array_equal(to_bf16(exact), exact)
    assert to_bf16(np.array([1 + 1 / 512]))[0] == 1
    assert abs(to_bf16(np.array([0.1]))[0] / 0.1 - 1) < 2**-8


def test_columns_take_over_the_errors_of_those_before_them() -> None:
    """Inputs that go along with each other, as neighbouring pixels do: the sum of the errors is what counts."""
    random = np.random.default_rng(1)
    inputs = random.normal(3, 1, (2, 500, 1)) + random.normal(0, 0.05, (2, 500, 70))
    rows = np.concatenate([np.ones((2, 500, 1)), inputs], axis=2)
    moments = rows.swapaxes(1, 2) @ rows / 500
    weights = random.normal(0, 0.3, (2, 5, 71))
    found = compensated(weights, moments)
    np.testing.assert_array_equal(found, to_bf16(found))
    assert np.abs(found - weights).max() < 0.02, "each moves by a few of its steps at most"
    wanted = rows @ weights.swapaxes(1, 2)
    error, nearest = (np.abs(rows @ one.swapaxes(1, 2) - wanted).mean() for one in (found, to_bf16(weights)))
    assert error < nearest / 5


@pytest.mark.parametrize(
    ("group", "more"),
    [
        (1, {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
        (4, {"dilations": [2, 1]}),
        (2, {}),
        (1, {"strides": [3, 3]}),
    ],
)
def test_moments_say_what_a_convolution_answers(group: int, more: dict[str, Any], tmp_path: Path) -> None:
    """With all places of a small picture: the mean square of the answers is w E[x x'] w'."""
    random = np.random.default_rng(2)
    weights = random.normal(0, 1, (4, 4 // group, 3, 2)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "c", group=group, **more)]
    bias = random.normal(0, 1, 4).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    places = [value("x", "FP32", (-1, 4, 5, 3))], [value("y", "FP32", (-1, 4, -1, -1))]
    path = save(tmp_path, nodes, *places, constants)
    feeds = [{"x": random.normal(1, 1, (2, 4, 5, 3)).astype(np.float32)} for _ in range(3)]
    model = onnx.load(path)
    (moments,) = input_moments(model, model.graph.node, [[3, 2]], feeds)
    assert moments.shape == (group, 1 + 24 // group, 1 + 24 // group)
    found = np.concatenate([bias.reshape(group, -1, 1), weights.reshape(group, 4 // group, -1)], axis=2)
    squares = np.einsum("gok,gkl,gol->go", found, moments, found).reshape(-1)
    np.testing.assert_allclose(squares, np.square(answers(path, feeds)).mean(axis=(0, 2, 3)), rtol=1e-4)


def test_answers_are_closer_than_with_the_nearest_weights(tmp_path: Path) -> None:
    source, feeds = models.deep(tmp_path), list(models.feeds(48, *PICTURE))
    made = convert("bf16-compensated", source, tmp_path / "into", feeds)
    assert made.notes["layers_compensated"] == 7
    assert made.notes["calibration_items"] == 48
    assert made.notes["libraries"]["onnx"] == onnx.__version__
    for array in _weights(made.path):
        np.testing.assert_array_equal(array, to_bf16(array))
    judging = list(models.feeds(96, *PICTURE))[48:]
    wanted = answers(source, judging)
    plain = np.abs(answers(_rounded(source, tmp_path / "plain.onnx"), judging) - wanted).mean()
    assert np.abs(answers(made.path, judging) - wanted).mean() < plain / 2


def test_few_samples_are_too_few(tmp_path: Path) -> None:
    source = models.pictures(tmp_path)
    for count in (0, 1, 15):
        with pytest.raises(ConversionFailed, match=f"16 samples at least and got {count}; upload"):
            convert("bf16-compensated", source, tmp_path / "into", models.feeds(count, *PICTURE))


def test_a_model_without_such_layers(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="no layers that can be compensated"):
        convert("bf16-compensated", models.products(tmp_path), tmp_path / "into", models.feeds(16, 32))
    with pytest.raises(ConversionFailed, match=r"sample 1 .*\[1, 3, 16, 8\]"):
        convert("bf16-compensated", models.pictures(tmp_path), tmp_path / "into", models.feeds(16, 3, 16, 8))


def test_weights_that_two_layers_share_are_left_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    nodes = [
        helper.make_node("Gemm", ["x", "shared"], ["h"], "g1"),
        helper.make_node("Gemm", ["h", "shared"], ["i"], "g2"),
        helper.make_node("Gemm", ["i", "w", "b"], ["y"], "g3"),
    ]
    arrays = {"shared": (8, 8), "w": (8, 4), "b": (1, 4)}
    made = {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in arrays.items()}
    constants = [numpy_helper.from_array(array, name) for name, array in made.items()]
    source = save(tmp_path, nodes, [value("x", "FP32", (-1, 8))], [value("y", "FP32", (-1, 4))], constants)
    found = convert("bf16-compensated", source, tmp_path / "into", models.feeds(16, 8))
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(found.path).graph.initializer}
    assert found.notes["layers_compensated"] == 1
    np.testing.assert_array_equal(after["shared"], made["shared"])
    np.testing.assert_array_equal(after["b"], made["b"])
    np.testing.assert_array_equal(after["w"], to_bf16(after["w"]))
