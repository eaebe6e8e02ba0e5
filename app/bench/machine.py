"""On what a measurement was made, since figures mean nothing without it."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from core.control.machine import gpu_stats
from core.engines.cores import cores_available


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, GPUs, the load of the last minute, versions and the time."""
    return {
        "processor": _processor(),
        "cores": cores_available(),
        "load_before": round(psutil.getloadavg()[0], 2),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [gpu["name"] for gpu in gpu_stats()],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "pulvinar": version("pulvinar"),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
