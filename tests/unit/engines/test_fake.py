from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.fake import FakeEngine
from core.errors import LoadFailed, RunFailed
from tests.unit.engines.models import fake

ONES = {"x": np.ones((2, 3), np.float32)}


def loaded(path: Path) -> FakeEngine:
    engine = FakeEngine()
    engine.load(path, EngineOptions())
    return engine


def test_scale_and_latency(tmp_path: Path) -> None:
    engine = loaded(fake(tmp_path, scale=-3, latency_ms=20, per_item_ms=10))
    before = time.monotonic()
    assert engine.run(ONES)["y"].tolist() == [[-3] * 3] * 2
    assert time.monotonic() - before >= 0.04


def test_outputs_of_another_shape_are_filled(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    signature = {
        "inputs": [{"name": "image", "dtype": "FP32", "shape": [-1, 3, 2, 2]}],
        "outputs": [
            {"name": "logits", "dtype": "FP32", "shape": [-1, 5]},
            {"name": "long", "dtype": "INT64", "shape": [-1, 20]},
        ],
    }
    path.write_text(json.dumps({"signature": signature, "latency_ms": 0}))
    given = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    answer = loaded(path).run({"image": given})
    assert answer["logits"].tolist() == [[0, 2, 4, 6, 8], [24, 26, 28, 30, 32]]
    assert answer["long"].shape == (2, 20)
    assert answer["long"].dtype == np.int64


def test_memory_is_really_held(tmp_path: Path) -> None:
    engine = loaded(fake(tmp_path, memory_bytes=10_000_000))
    assert engine.memory() == 10_000_000
    engine.close()
    assert engine.memory() == 0


def test_fail_on_load(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="told to fail"):
        loaded(fake(tmp_path, fail="load"))


@pytest.mark.parametrize("bad", [{"fail": "explode"}, {"latency_ms": -1}, {"surprise": 1}])
def test_bad_fields_are_named(bad: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=next(iter(bad))):
        loaded(fake(tmp_path, **bad))


def test_fail_on_a_value(tmp_path: Path) -> None:
    engine = loaded(fake(tmp_path, fail="run", fail_on=13))
    assert engine.run(ONES)["y"].shape == (2, 3)
    with pytest.raises(RunFailed, match="told to fail"):
        engine.run({"x": np.array([[1, 2, 3], [0, 13, 0]], np.float32)})


def test_fail_on_a_text(tmp_path: Path) -> None:
    engine = loaded(fake(tmp_path, dtype="BYTES", fail="run", fail_on="bad"))
    assert engine.run({"x": np.array([["a", "b", "c"]], object)})["y"].shape == (1, 3)
    for text in ("bad", b"bad"):
        with pytest.raises(RunFailed):
            engine.run({"x": np.array([["a", text, "c"]], object)})


def test_a_hang_ends_with_close(tmp_path: Path) -> None:
    engine = loaded(fake(tmp_path, fail="hang"))
    ended: list[Exception] = []

    def hang() -> None:
        try:
            engine.run(ONES)
        except RunFailed as error:
            ended.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    engine.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1


CRASH = """
import pathlib, sys, numpy
from core.engines.base import EngineOptions
from core.engines.fake import FakeEngine
engine = FakeEngine()
engine.load(pathlib.Path(sys.argv[1]), EngineOptions())
engine.run({"x": numpy.ones((1, 3), numpy.float32)})
"""


def test_a_crash_ends_the_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CRASH, str(fake(tmp_path, fail="crash"))]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
