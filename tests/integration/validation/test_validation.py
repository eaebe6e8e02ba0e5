from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper
from onnx_makers import floats, is_onnx, matmul, model_proto, onnx_bytes

from core.settings import ValidationSettings
from core.validation.runner import ValidationResult, validate

GIB = 1 << 30
LIMITS = ValidationSettings(memory_bytes=2 * GIB, cpu_s=60, wall_s=60)


def package(tmp_path: Path, model: Any, **files: bytes) -> Path:
    root = tmp_path / "artifact"
    root.mkdir()
    (root / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def check(root: Path, limits: ValidationSettings = LIMITS, **manifest: Any) -> ValidationResult:
    return asyncio.run(validate(root, {"model": "model.onnx", **manifest}, limits))


def failed(result: ValidationResult) -> dict[str, str]:
    assert not result.ok
    return {row["check"]: row["detail"] for row in result.report if not row["ok"]}


def only_failure(result: ValidationResult, name: str) -> str:
    rows = failed(result)
    assert list(rows) == [name], rows
    return rows[name]


def detail(result: ValidationResult, name: str) -> str:
    return next(row["detail"] for row in result.report if row["check"] == name)


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def workplaces() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("pulvinar-validation-*"))


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tmp")))
    yield
    assert children() == []
    assert workplaces() == []


def test_a_good_model_is_valid_and_measured(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    root = package(tmp_path, matmul())
    result = asyncio.run(validate(root, {"model": "model.onnx"}, LIMITS, rows.append))
    assert result.ok, result.report
    assert rows == result.report
    assert [row["check"] for row in rows] == [
        "manifest", "parse", "external_data", "operators", "structure", "load", "signature", "task", "dry_run",
        "example", "finite", "latency", "memory",
    ]  # fmt: skip
    assert result.signature == {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 3]}],
    }
    assert result.latency_ms is not None
    assert result.latency_ms > 0
    assert result.peak_memory_bytes is not None
    assert 20 << 20 < result.peak_memory_bytes < GIB
    assert "batches of 1 and 2" in detail(result, "dry_run")


def test_a_fixed_batch_is_valid_and_said(tmp_path: Path) -> None:
    result = check(package(tmp_path, matmul(batch=3)))
    assert result.ok, result.report
    assert "cannot be batched: input x has a fixed first axis of 3" in detail(result, "signature")
    assert "fixed batch" in detail(result, "dry_run")


@pytest.mark.parametrize("dtype", [TensorProto.STRING, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16])
def test_every_kind_of_tensor_gets_inputs(tmp_path: Path, dtype: int) -> None:
    tensor = [helper.make_tensor_value_info(name, dtype, ["n", "m"]) for name in "xy"]
    result = check(
        package(tmp_path, model_proto([helper.make_node("Identity", ["x"], ["y"])], tensor[:1], tensor[1:]))
    )
    assert result.ok, result.report
    assert "other dynamic axes were set to 8" in detail(result, "dry_run")


def image_model(*, classes: int = 3, height: int | str = 16) -> Any:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
             helper.make_node("MatMul", ["f", "w"], ["y"])]  # fmt: skip
    weights = {"w": np.ones((3, classes), np.float32)}
    return model_proto(nodes, [floats("x", "n", 3, height, height)], [floats("y", "n", classes)], weights)


IMAGES = {"task": "image-classification", "preprocess": {"layout": "NCHW", "resize": {"size": 24}}}


def test_an_image_model_answers_a_picture(tmp_path: Path) -> None:
    result = check(package(tmp_path, image_model(height="h")), **IMAGES, labels=["a", "b", "c"])
    assert result.ok, result.report
    assert "24x24" in detail(result, "dry_run")
    assert "predictions" in detail(result, "example")


def test_fewer_labels_than_classes_are_reported(tmp_path: Path) -> None:
    result = check(package(tmp_path, image_model(height="h")), **IMAGES, labels=["a", "b"])
    assert "2 labels" in only_failure(result, "task")
    assert detail(result, "finite")  # what does not need the task is still looked at


def test_a_task_that_does_not_fit_or_exist_is_reported(tmp_path: Path) -> None:
    root = package(tmp_path, matmul())
    assert "cannot hold a batch of images" in only_failure(check(root, **IMAGES), "task")
    assert "no task 'mind-reading'" in only_failure(check(root, task="mind-reading"), "task")


def test_damaged_files_are_reported(tmp_path: Path) -> None:
    data = onnx_bytes()
    assert is_onnx(data)
    (root := package(tmp_path, data[: len(data) // 2]))
    assert "cut short or damaged" in only_failure(check(root), "parse")
    (root / "model.onnx").write_bytes(b"I am a model, honest.\n" * 10)
    assert "cannot be parsed" in only_failure(check(root), "parse")
    (root / "model.onnx").unlink()
    assert "does not hold the model" in only_failure(check(root), "manifest")


def test_a_graph_against_the_rules_is_reported(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["nowhere", "x"], ["y"])
    result = check(package(tmp_path, model_proto([node], [floats("x", "n", 4)], [floats("y", "n", 4)])))
    assert "onnx checker refuses" in only_failure(result, "structure")
    assert str(tmp_path) not in str(result.report)


def test_custom_operators_are_reported_by_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Zap", ["x"], ["z"], domain="acme.ops"), helper.make_node("Blorb", ["z"], ["y"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme.ops", 1)]
    model = model_proto(nodes, [floats("x", "n")], [floats("y", "n")], opset_imports=opsets)
    text = only_failure(check(package(tmp_path, model)), "operators")
    assert "'acme.ops::Zap', 'Blorb'" in text


def test_a_function_of_the_models_own_is_no_custom_operator(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("mine", "Twist", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    node = helper.make_node("Twist", ["x"], ["y"], domain="mine")
    model = model_proto([node], [floats("x", "n")], [floats("y", "n")], opset_imports=opsets, functions=[function])
    result = check(package(tmp_path, model))
    assert result.ok, result.report


def test_nan_is_reported(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["x", "five"], ["m"]), helper.make_node("Log", ["m"], ["y"])]
    model = model_proto(nodes, [floats("x", "n", 4)], [floats("y", "n", 4)], {"five": np.float32(5)})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isnan(session.run(None, {"x": np.ones((1, 4), np.float32)})[0]).all()
    assert "NaN or infinity" in only_failure(check(package(tmp_path, model)), "finite")


def batch_breaker() -> Any:
    shape = {"shape": np.array([1, 4], np.int64)}
    return model_proto([helper.make_node("Reshape", ["x", "shape"], ["y"])], [floats("x", "n", 4)],
                       [floats("y", "n", 4)], shape)  # fmt: skip


def test_a_model_that_only_claims_to_batch_is_reported(tmp_path: Path) -> None:
    root = package(tmp_path, batch_breaker())
    assert "runs on one item but not on two" in only_failure(check(root), "dry_run")
    assert check(root, batching={"max_batch": 1}).ok


def test_external_data_in_the_package_are_used(tmp_path: Path) -> None:
    weights = np.arange(12, dtype=np.float32).tobytes()
    result = check(package(tmp_path, matmul(external="w.bin"), **{"w.bin": weights}))
    assert result.ok, result.report
    assert "1 tensors" in detail(result, "external_data")


@pytest.mark.parametrize(
    ("location", "said"),
    [("../secret.bin", "outside the package"), ("sub/../../secret.bin", "outside the package"),
     ("{secret}", "outside the package"), ("..\\secret.bin", "outside the package"), ("", "without a location"),
     ("missing.bin", "not in the package"), ("*/_ORT_MEM_ADDR_/*", "outside the package"),
     ("model.onnx/x", "not a folder")],
)  # fmt: skip
def test_external_data_elsewhere_are_refused_unread(tmp_path: Path, location: str, said: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(48))
    model = matmul(external=location.format(secret=secret))
    assert onnx.external_data_helper.uses_external_data(model.graph.initializer[0])
    result = check(package(tmp_path, model))
    assert said in only_failure(result, "external_data")
    assert [row["check"] for row in result.report] == ["manifest", "parse", "external_data"]


def test_external_data_of_a_constant_in_a_subgraph_are_seen(tmp_path: Path) -> None:
    inner = matmul(external="../secret.bin").graph.initializer[0]
    constant = helper.make_node("Constant", [], ["c"], value=inner)
    branch = helper.make_graph([constant], "b", [], [floats("c", 4, 3)])
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [1])
    result = check(package(tmp_path, model_proto([node], [flag], [floats("y", 4, 3)])))
    assert "outside the package" in only_failure(result, "external_data")


def test_linked_and_short_external_data_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(48))
    root = package(tmp_path, matmul(external="w.bin"))
    (root / "w.bin").symlink_to(secret)
    assert (root / "w.bin").read_bytes() == bytes(48)
    assert "link or a device" in only_failure(check(root), "manifest")
    (root / "w.bin").unlink()
    os.link(secret, root / "w.bin")
    assert (root / "w.bin").stat().st_nlink == 2
    assert "hard link" in only_failure(check(root), "external_data")
    (root / "w.bin").unlink()
    (root / "w.bin").write_bytes(bytes(40))
    assert "past the end" in only_failure(check(root), "external_data")


def endless() -> Any:
    """A Loop of 2**62 turns, each adding one."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["state", "one"], ["next"])],
        "body",
        [helper.make_tensor_value_info("turn", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []), floats("state", "n")],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), floats("next", "n")],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)
    weights = {"turns": np.array(2**62, np.int64), "one": np.float32(1)}
    return model_proto([loop], [floats("x", "n")], [floats("y", "n")], weights)


def test_an_endless_model_is_ended_by_the_clock(tmp_path: Path) -> None:
    root = package(tmp_path, endless())
    started = time.monotonic()
    result = check(root, ValidationSettings(memory_bytes=2 * GIB, cpu_s=100, wall_s=4))
    assert "took longer than 4 s" in only_failure(result, "dry_run")
    assert time.monotonic() - started < 20


def test_an_endless_model_is_ended_by_its_cpu_time(tmp_path: Path) -> None:
    result = check(package(tmp_path, endless()), ValidationSettings(memory_bytes=2 * GIB, cpu_s=3, wall_s=60))
    assert "more than the 3 s of CPU time" in only_failure(result, "dry_run")


def test_a_greedy_model_is_stopped_by_the_memory_limit(tmp_path: Path) -> None:
    """4 GiB are asked for, and the size depends on the input so that no optimiser folds it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Mul", ["n", "many"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    weights = {"many": np.array([1 << 30], np.int64)}
    model = model_proto(nodes, [floats("x", "n")], [floats("y", "n")], weights)
    assert is_onnx(model.SerializeToString())
    assert "ran out of memory" in only_failure(check(package(tmp_path, model)), "dry_run")


def test_a_huge_model_input_is_stopped_by_the_memory_limit(tmp_path: Path) -> None:
    model = model_proto(
        [helper.make_node("Relu", ["x"], ["y"])], [floats("x", "n", 1 << 40)], [floats("y", "n", "m")]
    )
    assert "ran out of memory" in only_failure(check(package(tmp_path, model)), "dry_run")


def test_functions_that_call_themselves_do_no_harm(tmp_path: Path) -> None:
    body = [helper.make_node("Twist", ["a"], ["b"], domain="mine")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Twist", ["a"], ["b"], body, opsets)
    node = helper.make_node("Twist", ["x"], ["y"], domain="mine")
    model = model_proto([node], [floats("x", "n")], [floats("y", "n")], opset_imports=opsets, functions=[function])
    rows = failed(check(package(tmp_path, model)))
    assert set(rows) <= {"structure", "load"}


async def _child(began: asyncio.Event) -> psutil.Process:
    await began.wait()
    (child,) = children()
    return child


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_reported_with_its_signal(tmp_path: Path, number: signal.Signals) -> None:
    root = package(tmp_path, endless())

    async def scenario() -> ValidationResult:
        began = asyncio.Event()
        running = asyncio.create_task(validate(root, {"model": "model.onnx"}, LIMITS, lambda row: began.set()))
        (await _child(began)).send_signal(number)
        return await running

    assert f"crashed the validator with signal {int(number)} ({number.name})" in "".join(
        failed(asyncio.run(scenario())).values()
    )


def test_cancelling_ends_the_process(tmp_path: Path) -> None:
    root = package(tmp_path, endless())

    async def scenario() -> psutil.Process:
        began = asyncio.Event()
        running = asyncio.create_task(validate(root, {"model": "model.onnx"}, LIMITS, lambda row: began.set()))
        child = await _child(began)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return child

    assert not asyncio.run(scenario()).is_running()


def test_the_process_knows_nothing_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULVINAR_SECRET_FOR_TEST", "hunter2")
    root = package(tmp_path, endless())

    async def scenario() -> tuple[dict[str, str], int, str, dict[str, Any]]:
        began = asyncio.Event()
        running = asyncio.create_task(validate(root, {"model": "model.onnx"}, LIMITS, lambda row: began.set()))
        child = await _child(began)
        status = Path(f"/proc/{child.pid}/status").read_text()
        limits = {name: child.rlimit(getattr(psutil, f"RLIMIT_{name}")) for name in ("AS", "CPU", "CORE", "FSIZE")}
        seen = child.environ(), os.getsid(child.pid), status, limits
        running.cancel()
        await asyncio.wait([running])
        return seen

    environment, session, status, limits = asyncio.run(scenario())
    ours = {
        "LANG",
        "TMPDIR",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MALLOC_ARENA_MAX",
        "ORT_DISABLE_TELEMETRY",
    }
    assert set(environment) == ours
    assert session != os.getsid(0)
    assert "NoNewPrivs:\t1" in status
    assert limits["AS"] == (2 * GIB, 2 * GIB)
    assert limits["CPU"] == (60, 61)
    assert limits["CORE"] == (0, 0)
    assert limits["FSIZE"] == (1 << 20, 1 << 20)


SERVER = """
import asyncio, sys
from pathlib import Path
from core.settings import ValidationSettings
from core.validation.runner import validate
began = lambda row: row["check"] == "task" and print("began", flush=True)
asyncio.run(validate(Path(sys.argv[1]), {"model": "model.onnx"}, ValidationSettings(), began))
"""


def test_a_killed_server_takes_the_process_with_it(tmp_path: Path) -> None:
    root = package(tmp_path, endless())
    with subprocess.Popen([sys.executable, "-c", SERVER, str(root)], stdout=subprocess.PIPE, env={
        **os.environ, "TMPDIR": str(tmp_path)
    }) as server:  # fmt: skip
        assert server.stdout is not None
        assert server.stdout.readline() == b"began\n"
        (child,) = psutil.Process(server.pid).children()
        while child.cpu_times().user < 2:  # deep in the loop, where it writes to no pipe that could end it
            time.sleep(0.05)
        server.kill()
    gone, alive = psutil.wait_procs([child], timeout=10)
    for process in alive:
        process.kill()
    assert alive == []
    assert gone == [child]


def test_the_server_does_not_load_onnx() -> None:
    program = (
        "import sys, core.store.importer, core.store.artifacts, core.validation.runner; "
        "sys.exit(bool({'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
