from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine, _sentence
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from tests.unit.engines.models import big, doubling, save, value

MIB = 1 << 20


def test_outputs_come_in_the_model_s_order(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["z"]), helper.make_node("Abs", ["x"], ["a"])]
    outputs = [value("z", "FP32", (-1, 3)), value("a", "FP32", (-1, 3))]
    engine = OnnxEngine()
    signature = engine.load(
        save(tmp_path, nodes, [value("x", "FP32", (-1, 3))], outputs), EngineOptions(threads=1)
    )
    assert [spec.name for spec in signature.outputs] == ["z", "a"]
    assert list(engine.run({"x": np.ones((1, 3), np.float32)})) == ["z", "a"]
    engine.close()


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    path = big(tmp_path, 1, save_as_external_data=True, location="weights.bin")
    assert (tmp_path / "weights.bin").stat().st_size >= MIB
    engine = OnnxEngine()
    engine.load(path, EngineOptions(threads=1))
    answer = engine.run({"x": np.eye(1, 1024, dtype=np.float32)})["y"]
    assert np.array_equal(answer[0], np.random.default_rng(0).random((1024, 256), np.float32)[0])
    engine.close()


def test_missing_external_data_is_named_without_its_folder(tmp_path: Path) -> None:
    path = big(tmp_path, 1, save_as_external_data=True, location="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadFailed) as caught:
        OnnxEngine().load(path, EngineOptions())
    assert str(tmp_path) not in caught.value.message


def test_memory_is_at_least_that_of_the_weights(tmp_path: Path) -> None:
    engine = OnnxEngine()
    engine.load(big(tmp_path, 16), EngineOptions(threads=1))
    assert engine.memory() >= 16 * MIB
    engine.close()
    assert engine.memory() == 0


def test_a_sequence_output_is_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("SplitToSequence", ["x"], ["parts"])
    output = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    path = save(tmp_path, [node], [value("x", "FP32", (-1, 3))], [output])
    with pytest.raises(LoadFailed, match=r"output parts is of type seq\(tensor\(float\)\)"):
        OnnxEngine().load(path, EngineOptions())


def test_a_failure_inside_the_graph_names_the_node_and_no_file(tmp_path: Path) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [1], [7])
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="/head/Reshape")
    path = save(tmp_path, [node], [value("x", "FP32", (-1, 3))], [value("y", "FP32", (-1,))], [shape])
    engine = OnnxEngine()
    engine.load(path, EngineOptions(threads=1))
    with pytest.raises(RunFailed) as caught:
        engine.run({"x": np.ones((1, 3), np.float32)})
    assert "/head/Reshape" in caught.value.message
    assert ".cc" not in caught.value.message
    assert "ONNXRuntimeError" not in caught.value.message
    assert "\n" not in caught.value.message
    engine.close()


def test_bytes_are_text_to_the_model(tmp_path: Path) -> None:
    engine = OnnxEngine()
    engine.load(doubling(tmp_path, "BYTES"), EngineOptions(threads=1))
    given = np.array([["ü".encode(), b"b", b""]], dtype=object)
    assert engine.run({"x": given})["y"].tolist() == [["ü", "b", ""]]
    with pytest.raises(RunFailed):
        engine.run({"x": np.array([[b"\xff", b"b", b""]], dtype=object)})
    engine.close()


def test_a_scalar_and_a_fixed_batch_are_seen(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [value("x", "FP32", (1, 3))],
        [value("y", "FP32", ())],
    )
    engine = OnnxEngine()
    signature = engine.load(path, EngineOptions(threads=1))
    assert signature.inputs[0].shape == (1, 3)
    assert signature.outputs[0].shape == ()
    assert engine.run({"x": np.ones((1, 3), np.float32)})["y"] == 3
    engine.close()


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "cuda:x", "tpu", ""])
def test_a_device_that_is_not_here(device: str, tmp_path: Path) -> None:
    if device.startswith("cuda") and "cuda:0" in OnnxEngine.info().devices:
        pytest.skip("this machine has CUDA")
    with pytest.raises(EngineUnavailable) as caught:
        OnnxEngine().load(doubling(tmp_path), EngineOptions(device=device))
    assert device in caught.value.message


def test_the_runtime_is_not_loaded_by_importing_the_engine() -> None:
    import subprocess
    import sys

    code = "import sys, core.engines.registry as r; r.engines_for('onnx'); print('onnxruntime' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


def test_sentences_lose_paths_and_keep_nodes(tmp_path: Path) -> None:
    said = RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/graph/model.cc:180 Load "
        f"node /conv1/Conv in {tmp_path}/model.onnx of /etc/passwd\n  failed."
    )
    assert _sentence(said, tmp_path / "model.onnx") == "Load node /conv1/Conv in the model file of a file failed."
    assert len(_sentence(RuntimeError("x" * 1000))) <= 301


@pytest.mark.parametrize(
    ("operator", "bounded"), [("Relu", True), ("Expand", False), ("Tile", False), ("ConstantOfShape", False)]
)
def test_work_that_depends_on_values_is_not_bounded(tmp_path: Path, operator: str, bounded: bool) -> None:
    inputs = {"Relu": ["x"], "ConstantOfShape": ["n"]}.get(operator, ["x", "n"])
    path = save(
        tmp_path,
        [helper.make_node(operator, inputs, ["y"])],
        [value("x", "FP32", (-1, 3)), value("n", "INT64", (2,))],
        [value("y", "FP32", (-1, -1))],
    )
    engine = OnnxEngine()
    engine.load(path, EngineOptions())
    assert engine.bounded is bounded
    engine.close()


def test_a_large_file_is_not_searched(tmp_path: Path) -> None:
    engine = OnnxEngine()
    engine.load(big(tmp_path, 8), EngineOptions())
    assert not engine.bounded
    engine.close()


def test_nothing_is_noted_about_its_use(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    model = doubling(tmp_path)
    code = (
        "import sys, pathlib; from core.engines.base import EngineOptions; "
        "from core.engines.onnx import OnnxEngine; "
        "OnnxEngine().load(pathlib.Path(sys.argv[1]), EngineOptions())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    subprocess.run([sys.executable, "-c", code, str(model)], env={**environment, "HOME": str(home)}, check=True)
    assert not list(home.rglob("*"))
