"""What engines say of their memory."""

from __future__ import annotations

import gc
import os
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

ROOT = Path(__file__).resolve().parents[3]
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


HEAPS = """
import ctypes
from sys import argv
from threading import Barrier, Thread

from core.engines.heap import use_one_arena


def allocate():
    everyone.wait()
    library.free(ctypes.c_void_p(library.malloc(4096)))
    everyone.wait()


library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
if argv[1] == "one":
    use_one_arena()
everyone = Barrier(4)
threads = [Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
"""


@pytest.mark.parametrize(
    ("how", "environment", "one"),
    [("many", {}, False), ("one", {}, True), ("one", {"MALLOC_ARENA_MAX": "3"}, False)],
    ids=["as it is", "one heap", "as its owner says"],
)
def test_threads_share_a_heap_where_they_are_told_to(how: str, environment: dict[str, str], one: bool) -> None:
    """malloc_info(3) lists the heaps that there are."""
    unset = {
        name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
    }
    done = subprocess.run(
        [sys.executable, "-c", HEAPS, how],
        env=unset | environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout.count("<heap nr=") == 1) is one


def test_growth_is_what_came_since_and_no_less_than_is_known() -> None:
    gc.collect()
    trim_heap()  # what earlier tests have left would go with the measuring, and hide what is looked for
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
