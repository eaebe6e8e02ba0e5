from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import LoadFailed
from tests.unit.engines.models import big, doubling

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
