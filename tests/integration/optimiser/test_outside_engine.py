"""An engine of another package is tried by a search, in the same confined process as ours."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ENGINE = """
from core.engines.onnx import OnnxEngine

class HouseEngine(OnnxEngine):
    name = "house"
"""
SEARCH = """
import asyncio, json, sys
from pathlib import Path
import numpy as np
from core.control.optimising import more_for
from core.database.tables import Version
from core.optimiser.feeds import write_feeds
from core.optimiser.search import Search, Subject, Wanted
from core.optimiser.space import Here

folder = Path(sys.argv[1])
feeds = write_feeds([{"x": np.full((1, 3), n, np.float32)} for n in range(4)], folder / "feeds")
subject = Subject(folder / "model.onnx", "onnx", feeds, folder / "reference")
more = more_for(Version(format="onnx"), {"engines": ["house"]})
here, wanted = Here({"onnx": ["cpu"]}, {}, [], 1), Wanted("memory", budget_s=60)
search = Search(subject, wanted, here, None, seconds=0.1, more=more)
found = asyncio.run(search.run())
print(json.dumps([trial.to_json() for trial in found.trials]))
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that sees this one's packages, and one more."""
    site, home = tmp_path / "site", tmp_path / "venv"
    about = site / "house-1.dist-info"
    about.mkdir(parents=True)
    (site / "house_engine.py").write_text(ENGINE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pulvinar.engines]\nhouse = house_engine:HouseEngine\n")
    library = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    library.mkdir(parents=True)
    (library / "more.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{ROOT}\n{site}\n")
    (home / "bin").mkdir()
    interpreter = Path(sys.executable)
    (home / "bin" / "python").symlink_to(interpreter)
    (home / "pyvenv.cfg").write_text(f"home = {interpreter.resolve().parent}\n")
    return home / "bin" / "python"


def test_it_is_tried_and_judged_like_ours(python: Path, tmp_path: Path) -> None:
    from tests.unit.engines import models

    models.doubling(tmp_path)
    done = subprocess.run(
        [str(python), "-c", SEARCH, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    reference, house, *_ = json.loads(done.stdout)
    assert reference["label"].startswith("onnx fp32")
    assert house["label"].startswith("house fp32")
    assert (house["status"], house["loss"]) == ("ok", 0.0), house["reason"]
    assert house["figures"]["throughput_per_s"] > 0
