from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import helper, numpy_helper

from core.engines import onnx_widths
from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import LoadFailed
from tests.unit.engines.models import big, doubling, value

MIB = 1 << 20
X = np.random.default_rng(1).random((3, 1024), np.float32)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _loaded(path: Path, *widths: int) -> OnnxEngine:
    engine = OnnxEngine()
    engine.load(path, EngineOptions(widths=widths))
    return engine


def _threads() -> int:
    return psutil.Process().num_threads()


def test_every_width_answers_the_same(tmp_path: Path, temporary: Path) -> None:
    path = big(tmp_path, 8)
    plain, wide = _loaded(path, 1), _loaded(path, 3, 2, 1)
    wanted = plain.run({"x": X})["y"]
    for threads in (0, 1, 2, 3, 64):
        assert np.allclose(wide.run_wide({"x": X}, threads)["y"], wanted, rtol=1e-5)
    assert len({id(session) for session in wide._sessions}) == 3
    plain.close()
    wide.close()


def test_a_width_has_its_own_threads(tmp_path: Path, temporary: Path) -> None:
    before = _threads()
    engine = _loaded(big(tmp_path, 1), 4, 2, 1)
    assert _threads() - before == 3 + 1
    engine.close()


def test_weights_are_in_memory_once_and_on_the_disk_no_more(tmp_path: Path, temporary: Path) -> None:
    path = big(tmp_path, 64)
    before = psutil.Process().memory_full_info().pss
    engine = _loaded(path, 4, 3, 2, 1)
    for threads in (4, 3, 2, 1):
        engine.run_wide({"x": X}, threads)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(temporary) in line]
    assert len(mapped) >= 4
    assert all(line.endswith("(deleted)") for line in mapped)
    assert os.listdir(temporary) == []
    assert psutil.Process().memory_full_info().pss - before < 2.5 * 64 * MIB  # of their own: over 4
    engine.close()
    with pytest.raises(Exception, match="not loaded"):
        engine.run_wide({"x": X}, 1)


def test_without_room_for_the_files_there_is_one_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    engine = _loaded(doubling(tmp_path), 2, 1)
    assert engine.run_wide({"x": np.ones((1, 3), np.float32)}, 1)["y"].tolist() == [[2, 2, 2]]
    assert len({id(session) for session in engine._sessions}) == 1
    engine.close()


def test_a_broken_file_is_refused_as_ever(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x00nothing")
    with pytest.raises(LoadFailed) as caught:
        OnnxEngine().load(tmp_path / "model.onnx", EngineOptions(widths=(2, 1)))
    assert str(tmp_path) not in caught.value.message
    assert os.listdir(temporary) == []


def test_packed_weights_lie_where_the_kernels_may_read_them(tmp_path: Path) -> None:
    """From other places some kernels end the process: `session.run` never comes back."""
    shapes = [(41, 123), (123, 357), (357, 45), (45, 1001)]
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), f"w{i}") for i, shape in enumerate(shapes)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(len(shapes))]
    places = value("x0", "FP32", ["batch", 41]), value("x4", "FP32", ["batch", 1001])
    graph = helper.make_graph(nodes, "chain", [places[0]], [places[1]], weights)
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    onnx_widths._optimise(onnxruntime, path, tmp_path / "optimised.onnx", _quiet())
    optimised = onnx.load(str(tmp_path / "optimised.onnx"), load_external_data=False)
    places = [entry.value.split("|")[1] for entry in onnx_widths._packed(optimised)]
    assert len(places) == len(shapes)
    assert all(int(place.split(";")[0]) % 64 == 0 for place in places)
    engine = _loaded(path, 2, 1)
    x = np.ones((2, 41), np.float32)
    assert np.allclose(engine.run_wide({"x0": x}, 1)["x4"], 41 * 123 * 357 * 45)
    engine.close()


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options
