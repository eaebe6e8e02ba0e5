from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import InvalidPackage, UnsupportedMedia
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.tensor import TensorTask

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
