"""What engines say of their memory."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.engines.base import Engine, EngineOptions
from core.engines.heap import Growth, trim_heap
from core.engines.onnx import OnnxEngine
from core.engines.openvino import OpenvinoEngine
from tests.unit.engines import models

BALLAST_BYTES = 64 << 20
PEAK_OF_LOADS = """
import threading
from contextlib import nullcontext
from pathlib import Path
from sys import argv

from core.engines.base import EngineOptions
from core.engines.heap import passing_blocks
from core.engines.onnx import OnnxEngine


def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def load():
    engine = OnnxEngine()
    engine.load(Path(argv[1]), EngineOptions(threads=1))
    engines.append(engine)


engines = []
with passing_blocks() if argv[2] == "passing" else nullcontext():
    load()
    engines.pop().close()
    before = kib("VmRSS")
    for _ in range(3):
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
print(kib("VmHWM") - before)
"""


def test_growth_is_what_came_since_and_no_less_than_is_known() -> None:
    growth = Growth()
    assert growth.bytes(1 << 40) == 1 << 40
    ballast = np.ones(BALLAST_BYTES, np.uint8)
    assert growth.bytes(0) > 0.9 * ballast.nbytes


@pytest.mark.parametrize("kind", [OnnxEngine, OpenvinoEngine])
def test_memory_is_measured_once_more_when_the_model_is_warm(kind: type[Engine], tmp_path: Path) -> None:
    gc.collect()
    trim_heap()  # what earlier tests have left would go with the measuring, and hide what is looked for
    engine = kind()
    engine.load(models.doubling(tmp_path), EngineOptions(threads=1))
    loaded_bytes = engine.memory()
    taken_by_warming_up = np.ones(BALLAST_BYTES, np.uint8)
    assert engine.memory() == loaded_bytes
    engine.shrink({"x": np.ones((1, 3), np.float32)})
    assert engine.memory() > loaded_bytes + 0.5 * taken_by_warming_up.nbytes
    engine.close()
    assert engine.memory() == 0


def test_what_loads_leave_behind_does_not_pile_up(tmp_path: Path) -> None:
    """Three loads without a trim between them, of a model whose weights are read, parsed and packed anew."""
    path = models.big(tmp_path, 24)

    def peak_bytes(how: str) -> int:
        command = [sys.executable, "-c", PEAK_OF_LOADS, str(path), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return int(done.stdout) << 10

    assert peak_bytes("passing") < (3 * 24 + 24 + 16) << 20, "what stays, what the last load needs besides, a rest"
