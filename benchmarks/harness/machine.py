"""What the figures were measured on: processor, cores, versions, revision."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.places import ROOT

NOTED = (
    "pulvinar", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "orjson", "pydantic", "numpy", "pillow",
    "simplejpeg", "onnxruntime", "litserve", "bentoml", "nvidia-pytriton",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """The machine and the project's own versions, as JSON."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": sorted(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": _first_line(["wrk", "--version"]),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "revision": revision(),
        "versions": package_versions(Path(sys.executable)),
    }


def package_versions(python: Path) -> dict[str, str]:
    """Versions of the packages worth noting in the environment of `python`."""
    command = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = {item["name"].lower(): item["version"] for item in json.loads(out)}
    return {name: found[name] for name in NOTED if name in found}


def server_core() -> int:
    """The core that servers are pinned to."""
    return _two_cores()[0]


def load_core() -> int:
    """The core that the load is pinned to."""
    return _two_cores()[1]


def _two_cores() -> list[int]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("Benchmarks need two cores: one for the server and one for the load.")
    return cores[:2]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def revision() -> str:
    head = _first_line(["git", "rev-parse", "HEAD"])
    return head + ("+changes" if _first_line(["git", "status", "--porcelain"]) else "")


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).partition("\n")[0].strip()
