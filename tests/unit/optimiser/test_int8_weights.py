"""Weights of 8 bits that take over each other's errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from core.optimiser.conversion import convert
from core.optimiser.rounding import LEVELS, Int8, compensated
from tests.unit.optimiser import models
from tests.unit.optimiser.test_conversion import answers

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
PICTURE = (3, 16, 16)


def nearest(weights: Array) -> Array:
    step = np.abs(weights[..., 1:]).max(axis=-1, keepdims=True) / LEVELS
    return np.concatenate([weights[..., :1], np.round(weights[..., 1:] / step) * step], axis=-1)


@pytest.mark.parametrize("has_bias", [True, False])
def test_outputs_stay_and_so_does_the_largest_weight(has_bias: bool) -> None:
    random = np.random.default_rng(1)
    inputs = random.normal(3, 1, (2, 500, 1)) + random.normal(0, 0.05, (2, 500, 70))
    rows = np.concatenate([np.ones((2, 500, 1)), inputs], axis=2)
    weights = random.normal(0, 0.3, (2, 200, 71))
    weights[..., 0] *= has_bias
    found = compensated(weights, rows.swapaxes(1, 2) @ rows / 500, grid=Int8(weights, has_bias=has_bias))
    steps = found[..., 1:] / (np.abs(weights[..., 1:]).max(axis=-1, keepdims=True) / LEVELS)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert (np.abs(steps).max(axis=-1).round() == LEVELS).all(), "who measures them anew finds the same steps"
    assert has_bias or not found[..., 0].any()
    wanted = rows @ weights.swapaxes(1, 2)
    error, plain = (np.abs(rows @ one.swapaxes(1, 2) - wanted).mean() for one in (found, nearest(weights)))
    assert error < plain / 5


def test_a_channel_of_zeros_stays_one() -> None:
    weights = np.zeros((1, 2, 4))
    weights[0, 1] = [1, 2, -3, 4]
    found = compensated(weights, np.eye(4)[None], grid=Int8(weights))
    assert not found[0, 0].any()
    assert found[0, 1, 3] == 4


def test_a_model_in_8_bits_answers_more_closely(tmp_path: Path) -> None:
    source, feeds = models.deep(tmp_path), list(models.feeds(48, *PICTURE))
    judging = list(models.feeds(96, *PICTURE))[48:]
    wanted = answers(source, judging)

    def error(name: str, **options: bool) -> float:
        made = convert("int8-static", source, tmp_path / name, feeds, options=options)
        assert made.notes["layers_compensated"] == (7 if options["compensate"] else 0)
        assert bool(made.notes["biases_corrected"]) is not options["compensate"]
        return float(np.abs(answers(made.path, judging) - wanted).mean())

    assert error("compensated", compensate=True) < 0.8 * error("corrected", compensate=False)


def test_the_steps_are_those_that_were_chosen(tmp_path: Path) -> None:
    """The quantiser finds the same scale as before, so that it rounds nothing once more."""
    source, feeds = models.deep(tmp_path), list(models.feeds(20, *PICTURE))
    scales = []
    for name, compensate in (("with", True), ("without", False)):
        made = convert("int8-static", source, tmp_path / name, feeds, options={"compensate": compensate})
        tensors = {tensor.name: tensor for tensor in onnx.load(str(made.path)).graph.initializer}
        scales.append(numpy_helper.to_array(tensors["w3_scale"]))
    np.testing.assert_allclose(scales[0], scales[1], rtol=1e-5)


def test_too_few_samples_tell_nothing_of_inputs_that_go_along(tmp_path: Path) -> None:
    source, feeds = models.deep(tmp_path), models.feeds(15, *PICTURE)
    made = convert("int8-static", source, tmp_path / "into", feeds, options={"compensate": True})
    assert made.notes["layers_compensated"] == 0
    assert made.notes["biases_corrected"] > 0
