"""Virtual environments for the peers, one a set of requirements, made once and kept under `build/`."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness.places import ENVIRONMENTS

SAME_AS_HERE = ("onnxruntime", "pillow")
"""Packages that do the work itself: peers get the versions that Pulvinar runs on."""


class InstallFailed(Exception):
    """An environment that could not be made; the message says why."""


def python_of(name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of an environment, made or brought up to date where needed. Raises InstallFailed."""
    folder = ENVIRONMENTS / name
    wanted = [f"{package}=={version(package)}" for package in SAME_AS_HERE] + ["numpy", *requirements]
    note = folder / "requirements.txt"
    python = folder / "bin" / "python"
    if not (note.is_file() and note.read_text().split() == wanted):
        print(f"  making the environment of {name} …", flush=True)
        if not python.exists():
            _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
        note.write_text("\n".join(wanted) + "\n")
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallFailed((errors or done.stderr.splitlines() or ["no reason given"])[-1][:300])
