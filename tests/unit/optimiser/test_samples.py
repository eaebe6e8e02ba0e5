from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import InvalidInput, UnsupportedMedia
from core.optimiser.samples import StoredSample, engine_inputs, split, synthetic
from core.signature import Signature, TensorSpec
from core.tasks.image_classification import ImageClassification
from core.tasks.tensor import TensorTask
from core.validation.samples import make_picture

ONE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 2)),))
TWO = Signature((TensorSpec("a", "INT64", (-1, -1)), TensorSpec("b", "INT64", (-1, -1))), ONE.outputs)


def sample(number: int, label: str | None = None) -> StoredSample:
    return StoredSample(number, hashlib.sha256(str(number).encode()).hexdigest(), "image/png", label, Path("x"))


def stored(folder: Path, data: bytes, media_type: str) -> StoredSample:
    path = folder / "sample"
    path.write_bytes(data)
    return StoredSample(1, "0" * 64, media_type, None, path)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_halves_are_the_same_in_any_order_and_share_nothing() -> None:
    samples = [sample(number) for number in range(101)]
    calibrating, judging = split(samples)
    assert (len(calibrating), len(judging)) == (51, 50)
    assert split(samples[::-1]) == (calibrating, judging)
    assert {one.id for one in calibrating}.isdisjoint(one.id for one in judging)


def test_every_label_is_halved() -> None:
    samples = [sample(number, label) for number, label in enumerate("aaaabbbbbbccc")]
    calibrating, judging = split(samples)
    for label in "abc":
        there = [sum(one.label == label for one in half) for half in (calibrating, judging)]
        assert abs(there[0] - there[1]) <= 1, label
    assert abs(len(calibrating) - len(judging)) <= 1


def test_one_sample_calibrates() -> None:
    assert split([sample(1)]) == ([sample(1)], [])


def test_an_image_goes_through_the_task(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 3, 8, 8)),), (TensorSpec("y", "FP32", (-1, 4)),))
    task = ImageClassification({"preprocess": {"resize": {"mode": "stretch", "size": 8}}}, signature, tmp_path)
    inputs = engine_inputs(stored(tmp_path, make_picture(), "image/png"), task, signature)
    assert inputs["x"].shape == (1, 3, 8, 8)
    assert inputs["x"].dtype == np.float32
    with pytest.raises(UnsupportedMedia):
        engine_inputs(stored(tmp_path, b"not a picture", "image/png"), task, signature)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (npy(np.arange(3.0)), "application/x-npy"),
        (npy(np.arange(3.0, dtype=np.float32)[None]), "application/x-npy"),
        (npz(x=np.arange(3.0)[None]), "application/x-npz"),
        (json.dumps({"inputs": {"x": [[0, 1, 2]]}}).encode(), "application/json"),
    ],
)
def test_arrays_become_what_the_engine_takes(data: bytes, media_type: str, tmp_path: Path) -> None:
    inputs = engine_inputs(stored(tmp_path, data, media_type), TensorTask({}, ONE, tmp_path), ONE)
    assert inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(inputs["x"], [[0, 1, 2]])


@pytest.mark.parametrize(
    ("data", "media_type", "says"),
    [
        (npy(np.ones((1, 4))), "application/x-npy", r"\[1, 4\].*\[-1, 3\]"),
        (npy(np.ones((1, 3), complex)), "application/x-npy", "complex128"),
        (npz(z=np.ones((1, 3))), "application/x-npz", "x"),
        (npy(np.ones((1, 3)))[:-4], "application/x-npy", "cannot be read"),
        (b'{"inputs": ', "application/json", "JSON"),
    ],
)
def test_arrays_that_do_not_fit(data: bytes, media_type: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=says):
        engine_inputs(stored(tmp_path, data, media_type), TensorTask({}, ONE, tmp_path), ONE)


def test_several_inputs_need_names(tmp_path: Path) -> None:
    task = TensorTask({}, TWO, tmp_path)
    with pytest.raises(InvalidInput, match="several inputs"):
        engine_inputs(stored(tmp_path, npy(np.ones((1, 3))), "application/x-npy"), task, TWO)
    inputs = engine_inputs(
        stored(tmp_path, npz(a=np.ones((1, 3), int), b=np.ones(3, int)), "application/x-npz"), task, TWO
    )
    assert [array.shape for array in inputs.values()] == [(1, 3), (1, 3)]


def test_made_up_inputs_differ_from_each_other_and_stay_the_same() -> None:
    made, again = list(synthetic(ONE, {}, 3)), list(synthetic(ONE, {}, 3))
    assert [feed["x"].tolist() for feed in made] == [feed["x"].tolist() for feed in again]
    assert len({feed["x"].tobytes() for feed in made}) == 3
