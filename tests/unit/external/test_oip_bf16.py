from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import orjson
import pytest
from onnx import TensorProto, helper

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import LoadFailed
from core.media.tensors import tensors_from_json, tensors_to_json
from core.serving.warm_up import warm_up_inputs
from core.signature import Signature, TensorSpec, dtype_name
from core.validation.samples import Sizes, make_inputs

BF16 = np.dtype(ml_dtypes.bfloat16)
SIGNATURE = Signature((TensorSpec("x", "BF16", (-1, 2)),), (TensorSpec("y", "BF16", (-1, 2)),))


def _save(folder: Path, *tensors: tuple[str, int]) -> Path:
    """Each tensor goes in by its name and comes out by its name in capitals."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [name.upper()]) for name, _ in tensors],
        "g",
        [helper.make_tensor_value_info(name, kind, ["n", 2]) for name, kind in tensors],
        [helper.make_tensor_value_info(name.upper(), kind, ["n", 2]) for name, kind in tensors],
    )
    path = folder / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_onnx_runtime_takes_and_gives_bf16(tmp_path: Path, rows: int) -> None:
    engine = OnnxEngine()
    try:
        signature = engine.load(
            _save(tmp_path, ("x", TensorProto.BFLOAT16), ("z", TensorProto.FLOAT)), EngineOptions()
        )
        assert [spec.dtype for spec in signature.outputs] == ["BF16", "FP32"]
        x = np.arange(rows * 2).reshape(rows, 2).astype(BF16) / 3
        z = np.ones((rows, 2), np.float32)
        # A slice that begins within the memory of another array, as parts of a batch do.
        outputs = engine.run({"x": np.concatenate([x, x])[rows:], "z": z})
    finally:
        engine.close()
    assert outputs["X"].dtype == BF16
    assert outputs["X"].shape == (rows, 2)
    assert outputs["X"].tobytes() == x.tobytes()
    assert outputs["Z"].tolist() == z.tolist()


def test_strings_beside_bf16_are_refused_when_loading(tmp_path: Path) -> None:
    engine = OnnxEngine()
    with pytest.raises(LoadFailed, match="strings and BF16 at once"):
        engine.load(_save(tmp_path, ("x", TensorProto.BFLOAT16), ("s", TensorProto.STRING)), EngineOptions())
    engine.close()


def test_the_native_api_carries_bf16_as_numbers() -> None:
    inputs = tensors_from_json({"x": [[1, 2.5]]}, SIGNATURE)
    assert inputs["x"].dtype == BF16
    told = orjson.loads(orjson.dumps(tensors_to_json(inputs), option=orjson.OPT_SERIALIZE_NUMPY))
    assert told == [{"name": "x", "dtype": "BF16", "shape": [1, 2], "data": [1.0, 2.5]}]


def test_everything_else_knows_bf16() -> None:
    assert dtype_name(BF16) == "BF16"
    warm = warm_up_inputs(SIGNATURE)
    assert warm is not None
    assert warm["x"].dtype == BF16
    assert make_inputs(SIGNATURE, Sizes(1), 2)["x"].dtype == BF16
