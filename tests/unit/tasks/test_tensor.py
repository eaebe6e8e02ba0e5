from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import InvalidPackage, UnsupportedMedia
from core.signature import Signature, TensorSpec
from core.tasks import tensor
from core.tasks.base import Payload
from core.tasks.tensor import TensorTask
from tests import segmenters
from tests.planted import must_notice

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 3)),))


def task() -> TensorTask:
    return TensorTask({"preprocess": {}, "postprocess": {}}, SIGNATURE, Path())


def test_media_is_answered_with_what_to_send() -> None:
    with pytest.raises(UnsupportedMedia, match=r'JSON \{"inputs": …\} with x'):
        task().preprocess([Payload(b"\xff\xd8\xff")], {})


def test_one_answer_for_all_outputs() -> None:
    outputs = {
        "y": np.array([[1, 2], [3, 4]], np.float32),
        "count": np.array([7], np.int64),
        "sure": np.array([True, False]),
        "text": np.array(["a", b"\xc3\xbc"], object),
        "scalar": np.float32(0.5).reshape(()),
    }
    (answer,) = task().postprocess(outputs, [], {})
    assert json.loads(json.dumps(answer, allow_nan=False)) == {
        "outputs": [
            {"name": "y", "dtype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]},
            {"name": "count", "dtype": "INT64", "shape": [1], "data": [7]},
            {"name": "sure", "dtype": "BOOL", "shape": [2], "data": [True, False]},
            {"name": "text", "dtype": "BYTES", "shape": [2], "data": ["a", "ü"]},
            {"name": "scalar", "dtype": "FP32", "shape": [], "data": [0.5]},
        ]
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_not_a_number_is_null(dtype: type) -> None:
    value = np.array([[1.5, np.nan], [np.inf, -np.inf]], dtype)
    (answer,) = task().postprocess({"y": value}, [], {})
    assert answer["outputs"][0]["data"] == [1.5, None, None, None]


def test_fields_are_refused_by_name() -> None:
    TensorTask.check({})
    with pytest.raises(InvalidPackage, match=r"preprocess\.mean"):
        TensorTask.check({"preprocess": {"mean": 1}})
    with pytest.raises(InvalidPackage, match="labels"):
        TensorTask.check({"labels": ["a"]})


def compare_outputs(path: Path) -> None:
    """Hold what the task answers of a model's outputs against ONNX Runtime's own."""
    given = np.random.default_rng(3).uniform(0, 255, (2, 3, segmenters.SIDE, segmenters.SIDE)).astype(np.float32)
    engine = OnnxEngine()
    signature = engine.load(path, EngineOptions(threads=1))
    bound = TensorTask({}, signature, path.parent)
    (answer,) = bound.postprocess(engine.run({"images": given}), [], {})
    engine.close()
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"images": given}), strict=True))
    assert {one["name"] for one in answer["outputs"]} == set(wanted)
    for one in answer["outputs"]:
        value = wanted[one["name"]]
        assert (one["dtype"], tuple(one["shape"])) == ("FP32", value.shape)
        np.testing.assert_allclose(np.array(one["data"]).reshape(one["shape"]), value, rtol=1e-5, atol=1e-5)


def test_a_model_s_outputs_are_the_reference_s(tmp_path: Path) -> None:
    compare_outputs(segmenters.instance_model(tmp_path / "model.onnx"))


@pytest.mark.planted("tensor")
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param("_data", lambda value: value.T.ravel().tolist(), id="column by column"),
        pytest.param("_data", lambda value: value[::-1].ravel().tolist(), id="items in another order"),
    ],
)
def test_a_planted_error_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(tensor, name, wrong)
    must_notice(compare_outputs, segmenters.instance_model(tmp_path / "model.onnx"))
