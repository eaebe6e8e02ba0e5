"""The torch engine beyond what every engine does: what a hostile archive cannot do, and how models are called."""

from __future__ import annotations

import builtins
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.torch import TorchEngine
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.signature import TensorSpec
from tests import torch_models
from tests.torch_forwards import (
    answer_is_x,
    branching,
    changes_its_input,
    gives_a_number,
    gives_two,
    keeps_count,
    keeps_count_through_a_view,
    reads_a_file,
    reckons,
    weighs,
    writes_a_file,
    writes_into_its_own,
)
from tests.torch_models import changed, payload, program, script, told, with_code

ONE = {"x": np.ones((1, 3), np.float32)}


def load(folder: Path, content: bytes, **extra: Any) -> TorchEngine:
    path = folder / "model"
    path.write_bytes(content)
    engine = TorchEngine()
    engine.signature = engine.load(path, EngineOptions(threads=1, extra=extra))  # type: ignore[attr-defined]
    return engine


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that a payload would make, in a process where nothing of Python's unpicklers may be called."""

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("something was unpickled")

    import torch

    monkeypatch.setattr(pickle, "loads", never)
    monkeypatch.setattr(pickle, "load", never)
    monkeypatch.setattr(torch, "load", never)
    return tmp_path / "it-ran"


def edited(change: Callable[[dict[str, Any]], None], forward: Callable[..., Any] = answer_is_x) -> bytes:
    """An exported program whose JSON was put through `change`."""

    def edit(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return changed(program(forward), {"models/model.json": edit})


def test_the_payload_would_run(tmp_path: Path) -> None:
    pickle.loads(payload(tmp_path / "it-ran"))
    assert (tmp_path / "it-ran").exists()


def test_a_program_with_dynamic_shapes_is_reckoned_as_pytorch_does(tmp_path: Path) -> None:
    import torch

    engine = load(tmp_path, program(reckons, "FP32", (-1, -1)))
    assert engine.signature.inputs == (TensorSpec("x", "FP32", (-1, -1)),)
    given = np.random.default_rng(0).random((5, 7), np.float32)
    answer = engine.run({"x": given})
    expected = reckons(None, torch.from_numpy(given))
    assert list(answer) == ["rows", "best", "places"]
    for name, value in answer.items():
        assert np.array_equal(value, expected[name].numpy()), name


def test_tuples_are_called_as_the_graph_or_the_manifest_calls_them(tmp_path: Path) -> None:
    assert [spec.name for spec in load(tmp_path, program(gives_two)).signature.outputs] == ["add", "mul"]
    outputs = [{"name": name, "dtype": "FP32", "shape": [-1, 3]} for name in ("sum", "product")]
    engine = load(tmp_path, script(gives_two), inputs=told()["inputs"], outputs=outputs)
    assert {name: value.tolist() for name, value in engine.run(ONE).items()} == {
        "sum": [[2, 2, 2]],
        "product": [[3, 3, 3]],
    }


@pytest.mark.parametrize("kind", [script, program])
def test_bf16_is_computed_and_answered_as_float(tmp_path: Path, kind: Callable[..., bytes]) -> None:
    extra = told() if kind is script else {}
    given = {"x": np.full((1, 3), 1.001, np.float32)}
    exact, rounded = (
        load(tmp_path, kind(weighs), precision=precision, **extra).run(given)["y"]
        for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()


def test_a_model_may_not_change_what_it_was_given(tmp_path: Path) -> None:
    given = np.ones((1, 3), np.float32)
    assert load(tmp_path, script(changes_its_input), **told()).run({"x": given})["y"].tolist() == [[2, 2, 2]]
    assert given.tolist() == [[1, 1, 1]]


def test_runs_take_the_threads_they_are_given(tmp_path: Path) -> None:
    import torch

    engine = load(tmp_path, script(answer_is_x), **told())
    engine.run(ONE)
    assert torch.get_num_threads() == 1
    engine.run_wide(ONE, 2)
    assert torch.get_num_threads() == 2


def test_it_says_that_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = __import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise ModuleNotFoundError(name="torch")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr("core.engines.torch.import_module", missing)
    with pytest.raises(EngineUnavailable, match=r"pip install 'pulvinar\[torch\]'"):
        load(tmp_path, script(answer_is_x), **told())


def test_a_gpu_that_is_not_there_is_not_replaced(tmp_path: Path) -> None:
    import torch

    path = torch_models.script_doubling(tmp_path)
    with pytest.raises(EngineUnavailable, match="NVIDIA driver"):
        TorchEngine().load(path, EngineOptions(device=f"cuda:{torch.cuda.device_count()}", extra=told()))


def read_by_a_name_in_pieces() -> bytes:
    call = b'_9 = getattr(torch, "from" "_file")("/etc/hostname", False, 1)'
    return with_code(script(answer_is_x), lambda code: code.replace(b"return {", call + b"\n    return {"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: script(reads_a_file), "'from_file'"),
        (lambda: script(writes_a_file), "'save'"),
        (read_by_a_name_in_pieces, "getattr"),
    ],
)
def test_a_script_that_reaches_files_is_not_loaded(
    tmp_path: Path, content: Callable[[], bytes], said: str
) -> None:
    with pytest.raises(LoadFailed, match=said):
        load(tmp_path, content(), **told())


def test_what_a_module_does_as_it_is_loaded_is_looked_at_before(tmp_path: Path) -> None:
    """`__setstate__` runs within torch.jit.load."""
    path = tmp_path / "written"
    method = f"""
  def __setstate__(self, state: int) -> NoneType:
    torch.save(state, "{path}")
    return None
""".encode()
    content = with_code(script(answer_is_x), lambda code: code.rstrip() + method)
    with pytest.raises(LoadFailed, match="'save'"):
        load(tmp_path, content, **told())
    assert not path.exists()


def test_two_records_of_one_name_are_not_loaded(tmp_path: Path) -> None:
    """PyTorch's reader and ours might each take another."""
    content = changed(script(answer_is_x), {}, **{"CONSTANTS.pkl": b"other"})
    with pytest.raises(LoadFailed, match="a record twice"):
        load(tmp_path, content, **told())


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, "list `inputs` and `outputs`"),
        ({**told(), "inputs": [{"name": "z", "dtype": "FP32", "shape": [1]}]}, "forward takes x"),
        (told("BYTES"), "BYTES, which PyTorch does not have"),
        ({**told(), "precision": "int3"}, "precision is fp32, bf16"),
        ({**told(), "speed": 9}, "no option 'speed'"),
    ],
)
def test_a_script_needs_to_be_told_rightly(tmp_path: Path, extra: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        load(tmp_path, script(answer_is_x), **extra)


@pytest.mark.parametrize("said", [told("INT64"), told(shape=(-1, 4)), told(shape=(-1, 3, 1))])
def test_an_output_unlike_what_was_told_is_an_error(tmp_path: Path, said: dict[str, Any]) -> None:
    engine = load(tmp_path, script(answer_is_x), inputs=told()["inputs"], outputs=said["outputs"])
    with pytest.raises(RunFailed, match="output y came as float32"):
        engine.run(ONE)


def test_a_program_keeps_its_pickled_samples_to_itself(tmp_path: Path, trace: Path) -> None:
    """torch.export.load would unpickle them, with any class at the second try."""
    content = changed(program(answer_is_x), {"data/sample_inputs/model.pt": lambda _: payload(trace)})
    assert load(tmp_path, content).run(ONE)["y"].tolist() == [[1, 1, 1]]
    assert not trace.exists()


def _pickled_weight(trace: Path) -> bytes:
    weight = "data/weights/model_weights_config.json"
    return changed(
        program(weighs),
        {
            weight: lambda content: content.replace(b'"use_pickle": false', b'"use_pickle": true'),
            "data/weights/weight_0": lambda _: payload(trace),
        },
    )


def _opaque_constant(trace: Path) -> bytes:
    return changed(program(answer_is_x), {}, **{"data/constants/opaque_obj_0": payload(trace)})


def _operator(trace: Path, target: str = "torch.os.system") -> bytes:
    def edit(value: dict[str, Any]) -> None:
        node = value["graph_module"]["graph"]["nodes"][0]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": {"as_string": f"touch {trace}"}, "kind": 1}]

    return edited(edit)


def _expression(trace: Path) -> bytes:
    """torch.export.load hands the text of a size to sympify, which evaluates it."""

    def edit(value: dict[str, Any]) -> None:
        size = {"expr_str": f"__import__('pathlib').Path('{trace}').touch()", "hint": {"as_int": 3}}
        value["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {"as_expr": size}

    return edited(edit)


def _guard(trace: Path) -> bytes:
    return edited(lambda value: value.update(guards_code=[f"__import__('os').system('touch {trace}')"]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pickled_weight, "as a pickle"),
        (_opaque_constant, "pickled objects"),
        (_operator, "torch.os.system.*not accepted"),
        (lambda trace: _operator(trace, "torch.ops.aten.from_file.default"), "not accepted"),
        (lambda trace: _operator(trace, "torch.ops.aten.__class__.mro"), "does not have"),
        (lambda trace: _operator(trace, "_operator.methodcaller"), "not accepted"),
        (_expression, ""),
        (_guard, ""),
    ],
)
def test_a_program_runs_nothing_of_its_own(
    tmp_path: Path, trace: Path, make: Callable[[Path], bytes], said: str
) -> None:
    if said:
        with pytest.raises(LoadFailed, match=said):
            load(tmp_path, make(trace))
    else:
        assert load(tmp_path, make(trace)).run(ONE)["y"].tolist() == [[1, 1, 1]]
    assert not trace.exists()


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (keeps_count, "own weight or buffer b_count"),
        (keeps_count_through_a_view, "own weight or buffer b_count"),
        (gives_a_number, "besides tensors"),
    ],
)
def test_a_program_that_cannot_be_served_is_said_to_be_so(
    tmp_path: Path, forward: Callable[..., Any], said: str
) -> None:
    with pytest.raises(LoadFailed, match=said):
        load(tmp_path, program(forward))


def test_a_program_may_write_into_what_it_has_made(tmp_path: Path) -> None:
    assert load(tmp_path, program(writes_into_its_own)).run(ONE)["y"].tolist() == [[2, 1, 1]]


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("graph_module"),
        lambda value: value["graph_module"]["graph"].pop("tensor_values"),
        lambda value: value["graph_module"]["graph"]["inputs"].pop(),
        lambda value: value["graph_module"]["graph"]["nodes"][0]["inputs"].append({"arg": {"as_what": 1}}),
        lambda value: value["graph_module"]["signature"]["input_specs"].append({"token": {}}),
        lambda value: value.update(schema_version={"major": 99}),
    ],
)
def test_a_program_that_is_put_together_wrongly_is_not_loaded(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(LoadFailed):
        load(tmp_path, edited(change))


def test_a_weight_beyond_its_record_is_not_loaded(tmp_path: Path) -> None:
    config = "data/weights/model_weights_config.json"
    content = changed(program(weighs), {config: lambda text: text.replace(b": 3}", b": 3000}")})
    with pytest.raises(LoadFailed):
        load(tmp_path, content)


def test_branches_of_a_script_are_kept(tmp_path: Path) -> None:
    engine = load(tmp_path, script(branching), **told())
    assert engine.run({"x": np.full((1, 3), 2, np.float32)})["y"].tolist() == [[4, 4, 4]]
    assert engine.run({"x": np.full((1, 3), -2, np.float32)})["y"].tolist() == [[0, 0, 0]]
