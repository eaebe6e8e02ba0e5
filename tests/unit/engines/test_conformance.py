"""What every engine must do alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from core.engines.base import Engine, EngineOptions
from core.engines.registry import engine_class, engines_for
from core.errors import LoadFailed, RunFailed
from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from tests.unit.engines.cases import CASES, Case

ROOT = Path(__file__).resolve().parents[3]
ONE = {"x": np.ones((1, 3), np.float32)}

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def engine(case: Case) -> Iterator[Engine]:
    made = engine_class(case.engine)()
    yield made
    made.close()


def load(
    engine: Engine, case: Case, folder: Path, dtype: str = "FP32", shape: Sequence[int] = (-1, 3)
) -> Signature:
    options = EngineOptions(threads=1, extra=case.extra(dtype, shape))
    return engine.load(case.doubling(folder, dtype, shape), options)


def test_information_says_it_works(case: Case) -> None:
    info = engine_class(case.engine).info()
    assert info.available
    assert info.name == case.engine
    assert info.version
    assert "cpu" in info.devices
    assert "fp32" in info.precisions
    assert case.engine in engines_for(case.format)


def test_every_dtype_goes_through(engine: Engine, case: Case, tmp_path: Path) -> None:
    for dtype in case.dtypes:
        signature = load(engine, case, tmp_path, dtype)
        assert signature.inputs == (TensorSpec("x", dtype, (-1, 3)),)
        assert signature.outputs == (TensorSpec("y", dtype, (-1, 3)),)
        values = ["a", "ü", ""] if dtype == "BYTES" else [1, 0, 3]
        given = np.array([values], NUMPY_DTYPES[dtype])
        answer = engine.run({"x": given})["y"]
        assert answer.dtype == NUMPY_DTYPES[dtype]
        assert answer.shape == (1, 3)
        expected = given if dtype in ("BOOL", "BYTES") else given * 2
        assert answer.tolist() == expected.tolist()
        engine.close()


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_batches_of_one_and_many(engine: Engine, case: Case, count: int, tmp_path: Path) -> None:
    given = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    load(engine, case, tmp_path)
    assert np.array_equal(engine.run({"x": given})["y"], given * 2)


def test_inner_axes_may_be_dynamic(engine: Engine, case: Case, tmp_path: Path) -> None:
    signature = load(engine, case, tmp_path, shape=(-1, -1, 2))
    assert signature.inputs[0].shape == (-1, -1, 2)
    for length in (1, 5):
        assert engine.run({"x": np.ones((2, length, 2), np.float32)})["y"].shape == (2, length, 2)


def test_a_fixed_batch_is_seen_and_kept(engine: Engine, case: Case, tmp_path: Path) -> None:
    signature = load(engine, case, tmp_path, shape=(2, 3))
    assert signature.inputs[0].shape == (2, 3)
    assert signature.outputs[0].shape == (2, 3)
    with pytest.raises(RunFailed):
        engine.run(ONE)
    assert engine.run({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[2] * 3] * 2


def test_runs_side_by_side_keep_their_own_answers(engine: Engine, case: Case, tmp_path: Path) -> None:
    assert engine.concurrent
    load(engine, case, tmp_path)

    def call(number: int) -> bool:
        given = np.full((1 + number % 3, 3), number, np.float32)
        return bool((engine.run({"x": given})["y"] == number * 2).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(200)))


def test_an_answer_stays_as_it_was(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    first = engine.run(ONE)["y"]
    engine.run({"x": np.full((1, 3), 7, np.float32)})
    assert first.tolist() == [[2, 2, 2]]
    engine.close()
    assert first.tolist() == [[2, 2, 2]]


def test_an_input_that_is_not_contiguous(engine: Engine, case: Case, tmp_path: Path) -> None:
    given = np.arange(12, dtype=np.float32).reshape(3, 4).T[:, :3]
    load(engine, case, tmp_path)
    assert np.array_equal(engine.run({"x": given})["y"], given * 2)


def test_an_input_that_cannot_be_written_to(engine: Engine, case: Case, tmp_path: Path) -> None:
    """As those are that another process has sent."""
    load(engine, case, tmp_path)
    given = np.frombuffer(np.arange(6, dtype=np.float32).tobytes(), np.float32).reshape(2, 3)
    assert np.array_equal(engine.run({"x": given})["y"], given * 2)


def test_an_empty_batch(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    assert engine.run({"x": np.empty((0, 3), np.float32)})["y"].shape == (0, 3)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": np.ones((1, 3), np.float64)},
        {"x": np.ones((1, 4), np.float32)},
        {"x": np.ones(3, np.float32)},
        {"other": np.ones((1, 3), np.float32)},
        {**ONE, "other": np.ones((1, 3), np.float32)},
    ],
    ids=["none", "dtype", "shape", "rank", "name", "one too many"],
)
def test_wrong_inputs_fail_cleanly_and_the_model_goes_on(
    engine: Engine, case: Case, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    load(engine, case, tmp_path)
    with pytest.raises(RunFailed) as caught:
        engine.run(inputs)
    assert str(tmp_path) not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith(".")
    assert engine.run(ONE)["y"].tolist() == [[2, 2, 2]]


def test_what_is_no_model_is_not_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    path = tmp_path / "secret-folder.bin"
    path.write_text("this is no model")
    with pytest.raises(LoadFailed) as caught:
        engine.load(path, EngineOptions(extra=case.extra("FP32", (-1, 3))))
    assert "secret-folder" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_a_model_cut_short_is_not_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    path = case.doubling(tmp_path, "FP32", (-1, 3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LoadFailed) as caught:
        engine.load(path, EngineOptions(extra=case.extra("FP32", (-1, 3))))
    assert str(tmp_path) not in caught.value.message


def test_a_missing_file_is_not_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        engine.load(tmp_path / "nothing", EngineOptions(extra=case.extra("FP32", (-1, 3))))
    assert str(tmp_path) not in caught.value.message


def test_close_twice_then_run(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    engine.close()
    engine.close()
    assert engine.memory() == 0
    with pytest.raises(RunFailed, match="not loaded"):
        engine.run(ONE)


def test_a_closed_engine_loads_again(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    engine.close()
    load(engine, case, tmp_path)
    assert engine.run(ONE)["y"].tolist() == [[2, 2, 2]]


def test_closing_beside_runs_breaks_nothing(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)

    def call(number: int) -> bool:
        if number == 50:
            engine.close()
        try:
            return engine.run(ONE)["y"].tolist() == [[2, 2, 2]]
        except RunFailed as error:
            return "not loaded" in error.message

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(100)))


def test_memory_is_given_back(case: Case, tmp_path: Path) -> None:
    """In a process of its own, whose memory is not that of other tests."""
    path = case.heavy(tmp_path, 32)
    command = [sys.executable, "-m", "benchmarks.load_cycles", "--one", case.engine, str(path), "--cycles", "4"]
    extra = ["--extra", json.dumps(dict(case.heavy_extra))]
    # With one arena: of more, the C library keeps the ends of some for the next time, as it happens.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [*command, *extra], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    said = json.loads(done.stdout)
    assert said["loaded_bytes"] - said["unloaded_bytes"][0] > 24 << 20
    assert max(said["unloaded_bytes"]) < said["unloaded_bytes"][0] * 1.05 + (2 << 20)
