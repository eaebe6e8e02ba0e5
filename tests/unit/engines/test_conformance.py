"""What every engine must do alike, on every device and with every provider that it has here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.engines.base import Engine
from core.engines.registry import engine_class, engines_for
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.signature import Signature
from tests.unit.engines.cases import ABSENT, PRESENT, Case
from tests.unit.engines.subjects import Arrays, Shape

ROOT = Path(__file__).resolve().parents[3]

every_case = pytest.mark.parametrize("case", PRESENT, ids=lambda case: case.name)


@pytest.fixture
def engine(case: Case) -> Iterator[Engine]:
    made = engine_class(case.engine)()
    yield made
    made.close()


def load(engine: Engine, case: Case, folder: Path, dtype: str = "FP32", shape: Shape = (-1, 3)) -> Signature:
    return engine.load(case.write(folder, dtype, shape), case.options(dtype, shape))


def answers(engine: Engine, case: Case, *numbers: int) -> list[int]:
    return case.subject.answered(engine.run(case.subject.ask(numbers)))


@pytest.mark.parametrize("name", ABSENT)
def test_a_case_that_cannot_run_here_says_why(name: str) -> None:
    pytest.skip(ABSENT[name])


@every_case
def test_information_says_it_works(case: Case) -> None:
    info = engine_class(case.engine).info()
    assert info.available
    assert info.name == case.engine
    assert info.version
    assert case.device in info.devices
    assert "fp32" in info.precisions
    assert case.engine in engines_for(case.format)


@every_case
def test_every_dtype_goes_through(engine: Engine, case: Case, tmp_path: Path) -> None:
    for dtype in case.dtypes:
        assert load(engine, case, tmp_path, dtype) == case.subject.signature(dtype, (-1, 3))
        asked = case.subject.numbers(4, dtype)
        assert case.subject.answered(engine.run(case.subject.ask(asked, dtype)), dtype) == asked
        engine.close()


@every_case
@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_batches_of_one_and_many(engine: Engine, case: Case, count: int, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    asked = case.subject.numbers(count)
    assert answers(engine, case, *asked) == asked


@every_case
def test_inner_axes_may_be_dynamic_or_are_refused(engine: Engine, case: Case, tmp_path: Path) -> None:
    shape = case.subject.open_shape
    if not case.inner_axes:
        with pytest.raises(LoadFailed, match="dynamic axes besides the batch"):
            load(engine, case, tmp_path, shape=shape)
        return
    assert load(engine, case, tmp_path, shape=shape) == case.subject.signature("FP32", shape)
    for length in (2, 5, 3):
        outputs = engine.run(case.subject.ask([2, 1], length=length))
        assert case.subject.answered(outputs) == [2, 1]


@pytest.mark.parametrize(
    "case", [case for case in PRESENT if case.subject.fixed_batch], ids=lambda case: case.name
)
def test_a_fixed_batch_is_seen_and_kept(engine: Engine, case: Case, tmp_path: Path) -> None:
    assert load(engine, case, tmp_path, shape=(2, 3)) == case.subject.signature("FP32", (2, 3))
    with pytest.raises(RunFailed):
        answers(engine, case, 1)
    assert answers(engine, case, 1, 2) == [1, 2]


@every_case
def test_runs_side_by_side_keep_their_own_answers(engine: Engine, case: Case, tmp_path: Path) -> None:
    """Also of those that are not said to be `concurrent`: they let the others wait."""
    assert engine.concurrent == case.subject.concurrent
    load(engine, case, tmp_path)

    def call(number: int) -> bool:
        asked = case.subject.numbers(number + 3)[number : number + 1 + number % 3]
        return answers(engine, case, *asked) == asked

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(case.subject.calls)))


@every_case
def test_an_answer_stays_as_it_was(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    first = engine.run(case.subject.ask([1]))
    answers(engine, case, 7)
    assert case.subject.answered(first) == [1]
    engine.close()
    assert case.subject.answered(first) == [1]


@every_case
def test_inputs_that_are_not_contiguous(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    given = {name: np.repeat(array, 2, -1)[..., ::2] for name, array in case.subject.ask([1, 2, 3]).items()}
    assert not any(array.flags.c_contiguous for array in given.values())
    assert case.subject.answered(engine.run(given)) == [1, 2, 3]


@every_case
def test_inputs_that_cannot_be_written_to(engine: Engine, case: Case, tmp_path: Path) -> None:
    """As those are that another process has sent."""
    load(engine, case, tmp_path)
    given = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in case.subject.ask([1, 2]).items()
    }
    assert case.subject.answered(engine.run(given)) == [1, 2]


@every_case
def test_an_empty_batch(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    assert answers(engine, case) == []


def _first(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    """The inputs with the first put through a function."""

    def changed(inputs: Arrays) -> Arrays:
        name = next(iter(inputs))
        return {**inputs, name: change(inputs[name])}

    return changed


@every_case
@pytest.mark.parametrize(
    "change",
    [
        lambda inputs: {},
        _first(lambda array: array.astype(np.float64)),
        _first(lambda array: np.concatenate([array, array], -1)),
        _first(lambda array: array[0]),
        lambda inputs: {"other" if name == next(iter(inputs)) else name: inputs[name] for name in inputs},
        lambda inputs: {**inputs, "other": next(iter(inputs.values()))},
    ],
    ids=["none", "dtype", "shape", "rank", "name", "one too many"],
)
def test_wrong_inputs_fail_cleanly_and_the_model_goes_on(
    engine: Engine, case: Case, change: Callable[[Arrays], Arrays], tmp_path: Path
) -> None:
    load(engine, case, tmp_path)
    with pytest.raises(RunFailed) as caught:
        engine.run(change(case.subject.ask([1])))
    assert str(tmp_path) not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith(".")
    assert answers(engine, case, 1) == [1]


@every_case
def test_what_is_no_model_is_not_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    path = tmp_path / "secret-folder.bin"
    path.write_text("this is no model")
    with pytest.raises(LoadFailed) as caught:
        engine.load(path, case.options())
    assert "secret-folder" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


@every_case
def test_a_model_cut_short_is_not_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, "FP32", (-1, 3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LoadFailed) as caught:
        engine.load(path, case.options())
    assert str(tmp_path) not in caught.value.message


@every_case
def test_a_missing_file_is_not_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        engine.load(tmp_path / "nothing", case.options())
    assert str(tmp_path) not in caught.value.message


@every_case
def test_a_mistyped_option_is_not_passed_over(engine: Engine, case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, "FP32", (-1, 3))
    options = replace(case.options(), extra={**case.options().extra, "presicion": "fp32"})
    with pytest.raises(LoadFailed, match="has no option 'presicion'"):
        engine.load(path, options)


@every_case
def test_all_that_a_deployment_may_choose_can_be_loaded(engine: Engine, case: Case, tmp_path: Path) -> None:
    offered = engine_class(case.engine).choices(case.device)
    assert "fp32" in offered["precision"]
    path, options = case.write(tmp_path, "FP32", (-1, 3)), case.options()
    for name, words in offered.items():
        for word in words:
            engine.load(path, replace(options, extra={**options.extra, name: word}))
            assert answers(engine, case, 1) == [1]
            engine.close()
        with pytest.raises((LoadFailed, EngineUnavailable)):
            engine.load(path, replace(options, extra={**options.extra, name: "fp8"}))


@every_case
def test_close_twice_then_run(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    engine.close()
    engine.close()
    assert engine.memory() == 0
    with pytest.raises(RunFailed, match="not loaded"):
        answers(engine, case, 1)


@every_case
def test_a_closed_engine_loads_again(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)
    engine.close()
    load(engine, case, tmp_path)
    assert answers(engine, case, 1) == [1]


@every_case
def test_closing_beside_runs_breaks_nothing(engine: Engine, case: Case, tmp_path: Path) -> None:
    load(engine, case, tmp_path)

    def call(number: int) -> bool:
        if number == case.subject.calls // 4:
            engine.close()
        try:
            return answers(engine, case, 1) == [1]
        except RunFailed as error:
            return "not loaded" in error.message

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(case.subject.calls // 2)))


@every_case
def test_memory_is_given_back(case: Case, tmp_path: Path) -> None:
    """In a process of its own, whose memory is not that of other tests, and which is set up as a server's is."""
    extra = json.dumps({**case.extra, **case.heavy_told})
    command = [sys.executable, "-m", "benchmarks.load_cycles", "--cycles", "8", "--device", case.device]
    command += ["--one", case.engine, str(case.heavy(tmp_path, 32)), "--extra", extra]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout)
    assert said["loaded_bytes"] - said["unloaded_bytes"][0] > 24 << 20
    assert max(said["unloaded_bytes"]) < said["unloaded_bytes"][0] * 1.05 + (2 << 20)
