"""An engine that lives outside the tree: that of docs/adding-an-engine.md, installed as its page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/adding-an-engine.md").read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with the page's in it."""
    match = re.search(r"<!-- file: pulvinar_linear/engine.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    line = re.search(r'^linear = "(.+)"$', PAGE, re.MULTILINE)
    assert match
    assert line
    package, about = tmp_path / "pulvinar_linear", tmp_path / "pulvinar_linear-1.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").touch()
    (package / "engine.py").write_text(match[1], encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pulvinar-linear\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[pulvinar.engines]\nlinear = {line[1]}\nonnx = pulvinar_linear.engine:LinearEngine\n"
        "gone = pulvinar_linear.no_such_module:Engine\n"
    )
    np.savez(tmp_path / "model.npz", w=np.eye(3, 2, dtype=np.float32), b=np.array([1, 2], np.float32))
    return tmp_path


def python(site: Path, code: str) -> str:
    """What a fresh interpreter prints that has the package installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-c", code, str(site / "model.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


RUN = """
import sys
from pathlib import Path
import numpy as np
from core.control.host_main import make_engine
from core.engines.registry import engines_for
assert engines_for("linear") == ["linear"]
engine, signature = make_engine({"engine": "linear", "artifact": sys.argv[1], "engine_options": {"threads": 1}})
print(signature.why_not_batchable(), engine.run({"x": np.ones((2, 3), np.float32)})["y"].tolist(), engine.memory())
engine.close()
"""


def test_it_is_found_and_runs(site: Path) -> None:
    assert python(site, RUN) == f"None [[2.0, 3.0], [2.0, 3.0]] {(6 + 2) * 4}\n"


LIST = """
from core.engines.registry import ENGINES, engine_class, engine_names, list_engines
print(engine_names()[len(ENGINES):], engine_class("onnx").__module__)
for info in list_engines()[len(ENGINES):]:
    print(info.name, info.available, info.reason)
"""


def test_it_is_listed_after_ours_and_takes_no_name_of_ours(site: Path) -> None:
    first, linear, gone = python(site, LIST).splitlines()
    assert first == "['linear', 'gone'] core.engines.onnx"
    assert linear == "linear True None"
    assert gone.startswith("gone False")
    assert "no_such_module is missing; see the package that brings gone." in gone


def test_the_suite_s_demands_hold_for_it(site: Path, tmp_path: Path) -> None:
    """Those that need no models of every dtype."""
    code = """
import sys
from pathlib import Path
import numpy as np
from core.engines.base import EngineOptions
from core.engines.registry import engine_class
from core.errors import LoadFailed, RunFailed
def said(call, kind):
    try: call()
    except kind as error: print(error.message)
engine = engine_class("linear")()
engine.load(Path(sys.argv[1]), EngineOptions())
said(lambda: engine.run({"x": np.ones((1, 4), np.float32)}), RunFailed)
said(lambda: engine.run({}), RunFailed)
engine.close(); engine.close()
said(lambda: engine.run({"x": np.ones((1, 3), np.float32)}), RunFailed)
said(lambda: engine.load(Path("nothing"), EngineOptions()), LoadFailed)
"""
    assert python(site, code).splitlines() == [
        "The input x must have shape [-1, 3], not [1, 4].",
        "The input x is missing.",
        "The model is not loaded.",
        "The file is not an .npz with the arrays w and b.",
    ]
