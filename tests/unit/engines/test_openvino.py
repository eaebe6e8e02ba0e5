from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.engines.openvino import OpenvinoEngine, _sentence
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.signature import TensorSpec
from tests.unit.engines.models import big, doubling, ir_doubling, save, to_ir, value

THREE = np.array([[1, 2, 3]], np.float32)


def loaded(path: Path, **options: object) -> OpenvinoEngine:
    engine = OpenvinoEngine()
    engine.load(path, EngineOptions(**{"threads": 1, **options}))  # type: ignore[arg-type]
    return engine


def has(precision: str) -> bool:
    return precision in OpenvinoEngine.info().precisions


@pytest.mark.parametrize("keep", [lambda path: path, to_ir], ids=["onnx", "ir"])
def test_outputs_keep_their_names_and_order(keep: Callable[[Path], Path], tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["z"]), helper.make_node("Identity", ["z"], ["a"])]
    outputs = [value(name, "FP32", (-1, 3)) for name in ("z", "a", "x")]
    engine = OpenvinoEngine()
    path = keep(save(tmp_path, nodes, [value("x", "FP32", (-1, 3))], outputs))
    signature = engine.load(path, EngineOptions(threads=1))
    assert [spec.name for spec in signature.outputs] == ["z", "a", "x"]
    assert {name: array.tolist() for name, array in engine.run({"x": THREE}).items()} == {
        "z": [[-1, -2, -3]],
        "a": [[-1, -2, -3]],
        "x": [[1, 2, 3]],
    }
    engine.close()


def test_bf16_goes_in_and_out(tmp_path: Path) -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n", 3]) for name in ("x", "y")]
    engine = OpenvinoEngine()
    path = save(tmp_path, [helper.make_node("Add", ["x", "x"], ["y"])], tensors[:1], tensors[1:])
    assert engine.load(path, EngineOptions(threads=1)).outputs == (TensorSpec("y", "BF16", (-1, 3)),)
    answer = engine.run({"x": THREE.astype(ml_dtypes.bfloat16)})["y"]
    assert answer.dtype == ml_dtypes.bfloat16
    assert answer.tolist() == [[2, 4, 6]]
    engine.close()


def test_a_scalar_goes_in_and_out(tmp_path: Path) -> None:
    engine = loaded(doubling(tmp_path, "FP32", ()))
    assert engine.run({"x": np.array(3, np.float32)})["y"] == 6
    engine.close()


@pytest.mark.parametrize("number", [2**31, 2**33, -(2**31) - 1])
def test_numbers_that_would_be_cut_in_half_are_refused(number: int, tmp_path: Path) -> None:
    engine = loaded(doubling(tmp_path, "INT64"))
    with pytest.raises(RunFailed, match="input x holds numbers beyond 32 bits"):
        engine.run({"x": np.array([[1, number, 0]])})
    assert engine.run({"x": np.array([[1, -(2**30), 0]])})["y"].tolist() == [[2, -(2**31), 0]]
    assert engine.run({"x": np.empty((0, 3), np.int64)})["y"].shape == (0, 3)
    engine.close()


def test_a_quantised_model_answers_as_onnx_runtime_does(tmp_path: Path) -> None:
    x = np.random.default_rng(1).random((8, 64), np.float32)
    path, answers = quantised(tmp_path), []
    for engine in (OnnxEngine(), OpenvinoEngine()):
        engine.load(path, EngineOptions(threads=1))
        answers.append(engine.run({"x": x})["y"])
        engine.close()
    assert np.allclose(*answers, atol=0.02)
    assert len(np.unique(answers[1])) > 100


def test_fp32_is_fp32_unless_asked_otherwise(tmp_path: Path) -> None:
    path, x = big(tmp_path, 4), np.random.default_rng(1).random((8, 1024), np.float32)
    reference = OnnxEngine()
    reference.load(path, EngineOptions(threads=1))
    right = reference.run({"x": x})["y"]
    errors = {}
    for precision in ("fp32", "f32", "bf16"):
        if has("bf16") or precision != "bf16":
            engine = loaded(path, extra={"precision": precision})
            errors[precision] = float(np.abs(engine.run({"x": x})["y"] / right - 1).max())
            engine.close()
    assert errors["fp32"] == errors["f32"] < 1e-5
    assert errors.get("bf16", 1e-3) > 1e-4
    reference.close()


def quantised(folder: Path) -> Path:
    """y = x · w in INT8 between QuantizeLinear and DequantizeLinear, as calibration leaves a model."""
    weights = np.random.default_rng(0).integers(-127, 128, (64, 64), np.int8)
    constants = [
        numpy_helper.from_array(np.array(number), name)
        for name, number in {
            "scale": np.float32(1 / 255),
            "zero": np.uint8(0),
            "w": weights,
            "ws": np.float32(0.01),
            "wz": np.int8(0),
        }.items()
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"]),
        helper.make_node("MatMul", ["d", "dw"], ["y"]),
    ]
    return save(folder, nodes, [value("x", "FP32", (-1, 64))], [value("y", "FP32", (-1, 64))], constants)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"precision": "int4"}, "precision is fp32, bf16, fp16"),
        ({"hint": "fast"}, "hint is latency, throughput"),
        ({"streams": 0}, "streams is a whole number from 1"),
        ({"precison": "bf16"}, "no option 'precison'; it has precision"),
    ],
)
def test_wrong_options_are_answered_with_the_right(extra: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=said):
        loaded(doubling(tmp_path), extra=extra)


def test_threads_and_streams_are_those_asked_for(tmp_path: Path) -> None:
    engine = OpenvinoEngine()
    path = doubling(tmp_path)
    for options, threads, streams in (
        (EngineOptions(threads=1), 1, 1),
        (EngineOptions(widths=(2, 1)), 2, 1),
        (EngineOptions(threads=1, extra={"streams": 2}), 2, 2),
    ):
        engine.load(path, options)
        assert engine._model.get_property("INFERENCE_NUM_THREADS") == threads
        assert engine._model.get_property("NUM_STREAMS") == streams
        assert not engine._model.get_property("ENABLE_CPU_PINNING")
        engine.close()


@pytest.mark.parametrize("device", ["gpu:7", "cuda:0", "", "cpu:1", "CPU"])
def test_a_device_that_is_not_here(device: str, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="it has cpu"):
        loaded(doubling(tmp_path), device=device)


def test_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="input x is of type string"):
        loaded(doubling(tmp_path, "BYTES"))


def test_an_unknown_number_of_axes_is_refused_by_name(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    with pytest.raises(LoadFailed, match="input x has no fixed number of axes"):
        loaded(save(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], [x], [y]))


def test_weights_of_an_ir_that_are_not_there(tmp_path: Path) -> None:
    path = ir_doubling(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(LoadFailed, match=r"\.bin file of the OpenVINO model is missing"):
        loaded(path)


def test_other_formats_of_the_library_are_not_tried(tmp_path: Path) -> None:
    """A TensorFlow Lite file, which the library would read under any name."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    with pytest.raises(LoadFailed, match="OpenVINO cannot load the model"):
        loaded(path)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_inside_the_graph_is_one_sentence(threads: int, tmp_path: Path) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [1], [7])
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="/head/Reshape")
    path = save(tmp_path, [node], [value("x", "FP32", (-1, 3))], [value("y", "FP32", (-1,))], [shape])
    engine = loaded(path, threads=threads)
    with pytest.raises(RunFailed) as caught:
        engine.run({"x": THREE})
    assert "Reshape" in caught.value.message
    assert "src/" not in caught.value.message
    assert "xception" not in caught.value.message
    assert "\n" not in caught.value.message
    engine.close()


def test_sentences_lose_source_files() -> None:
    said = RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'exists(path)' failed at src/frontend.cpp:117:\n"
        "FrontEnd API failed with GeneralFailure:\nonnx: Could not open it\n\n"
    )
    assert _sentence(said) == "FrontEnd API failed with GeneralFailure: onnx: Could not open it."


QUIET = """
import socket, sys
def refuse(*arguments, **options):
    raise AssertionError("it wants to go out")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
import numpy
from core.engines.base import EngineOptions
from core.engines.openvino import OpenvinoEngine
engine = OpenvinoEngine()
engine.load(Path(sys.argv[1]), EngineOptions(threads=1))
engine.run({"x": numpy.ones((1, 3), numpy.float32)})
engine.close()
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module])
"""


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUIET, str(doubling(tmp_path))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_library_the_engine_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from core.engines.openvino import OpenvinoEngine\n"
        "info = OpenvinoEngine.info(); print(info.available, info.reason)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("False OpenVINO is not installed: pip install 'pulvinar[openvino]'")
