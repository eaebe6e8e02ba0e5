"""What every engine must do alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from core.engines.base import Engine, EngineOptions
from core.engines.registry import engine_class
from core.errors import LoadFailed, RunFailed
from core.signature import NUMPY_DTYPES, TensorSpec
from tests.unit.engines.models import ONNX_TYPES, doubling

pytestmark = pytest.mark.parametrize("name", ["onnx", "fake"])


@pytest.fixture
def engine(name: str):
    made = engine_class(name)()
    yield made
    made.close()


def loaded(engine: Engine, path: Path) -> Engine:
    engine.load(path, EngineOptions(threads=1))
    return engine


def test_information_says_it_works(name: str) -> None:
    info = engine_class(name).info()
    assert info.available
    assert info.name == name
    assert info.version
    assert "cpu" in info.devices
    assert name in engine_class(name).formats


@pytest.mark.parametrize("dtype", sorted(ONNX_TYPES))
def test_every_dtype_goes_through(engine: Engine, name: str, dtype: str, tmp_path: Path) -> None:
    signature = engine.load(doubling(name, tmp_path, dtype), EngineOptions(threads=1))
    assert signature.inputs == (TensorSpec("x", dtype, (-1, 3)),)
    assert signature.outputs == (TensorSpec("y", dtype, (-1, 3)),)
    values = ["a", "ü", ""] if dtype == "BYTES" else [1, 0, 3]
    given = np.array([values], NUMPY_DTYPES[dtype])
    answer = engine.run({"x": given})["y"]
    assert answer.dtype == NUMPY_DTYPES[dtype]
    assert answer.shape == (1, 3)
    expected = given if dtype in ("BOOL", "BYTES") else given * 2
    assert answer.tolist() == expected.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_batches_of_one_and_many(engine: Engine, name: str, count: int, tmp_path: Path) -> None:
    given = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    answer = loaded(engine, doubling(name, tmp_path)).run({"x": given})["y"]
    assert np.array_equal(answer, given * 2)


def test_inner_axes_may_be_dynamic(engine: Engine, name: str, tmp_path: Path) -> None:
    signature = engine.load(doubling(name, tmp_path, shape=(-1, -1, 2)), EngineOptions(threads=1))
    assert signature.inputs[0].shape == (-1, -1, 2)
    for length in (1, 5):
        assert engine.run({"x": np.ones((2, length, 2), np.float32)})["y"].shape == (2, length, 2)


def test_runs_side_by_side_keep_their_own_answers(engine: Engine, name: str, tmp_path: Path) -> None:
    assert engine.concurrent
    loaded(engine, doubling(name, tmp_path))

    def call(number: int) -> bool:
        given = np.full((2, 3), number, np.float32)
        return bool((engine.run({"x": given})["y"] == number * 2).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(200)))


def test_an_input_that_is_not_contiguous(engine: Engine, name: str, tmp_path: Path) -> None:
    given = np.arange(12, dtype=np.float32).reshape(3, 4).T[:, :3]
    assert np.array_equal(loaded(engine, doubling(name, tmp_path)).run({"x": given})["y"], given * 2)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": np.ones((1, 3), np.float64)},
        {"x": np.ones((1, 4), np.float32)},
        {"x": np.ones(3, np.float32)},
        {"other": np.ones((1, 3), np.float32)},
    ],
)
def test_wrong_inputs_fail_cleanly_and_the_model_goes_on(
    engine: Engine, name: str, inputs, tmp_path: Path
) -> None:
    loaded(engine, doubling(name, tmp_path))
    with pytest.raises(RunFailed) as caught:
        engine.run(inputs)
    assert str(tmp_path) not in caught.value.message
    assert caught.value.message.endswith(".")
    assert engine.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]


def test_what_is_no_model_is_not_loaded(engine: Engine, name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret-folder.bin"
    path.write_text("this is no model")
    with pytest.raises(LoadFailed) as caught:
        engine.load(path, EngineOptions())
    assert "secret-folder" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_a_missing_file_is_not_loaded(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        engine.load(tmp_path / "nothing", EngineOptions())
    assert str(tmp_path) not in caught.value.message


def test_close_twice_then_run(engine: Engine, name: str, tmp_path: Path) -> None:
    loaded(engine, doubling(name, tmp_path))
    engine.close()
    engine.close()
    assert engine.memory() == 0
    with pytest.raises(RunFailed, match="not loaded"):
        engine.run({"x": np.ones((1, 3), np.float32)})


def test_a_closed_engine_loads_again(engine: Engine, name: str, tmp_path: Path) -> None:
    path = doubling(name, tmp_path)
    loaded(engine, path).close()
    assert loaded(engine, path).run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]
