"""What the machine and this process are doing now: CPU, memory, disk, GPUs."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil


def machine_stats(data_dir: Path, started_at: float) -> dict[str, Any]:
    """One reading of everything; blocking, a few milliseconds. CPU is since the reading before."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(data_dir))
    per_core = psutil.cpu_percent(percpu=True)
    return {
        "cpu": {
            "cores": len(per_core),
            "percent": round(sum(per_core) / max(1, len(per_core)), 1),
            "per_core": per_core,
            "load_average": [round(load, 2) for load in psutil.getloadavg()],
        },
        "memory": {
            "total_bytes": memory.total,
            "used_bytes": memory.used,
            "available_bytes": memory.available,
        },
        "disk": {"total_bytes": disk.total, "used_bytes": disk.used, "free_bytes": disk.free},
        "gpus": gpu_stats(),
        "process": process_stats(started_at),
    }


def process_stats(started_at: float) -> dict[str, Any]:
    """This process: memory, threads, open files, and how long it has run."""
    process = psutil.Process()
    with process.oneshot():
        return {
            "pid": os.getpid(),
            "uptime_s": round(time.time() - started_at, 1),
            "rss_bytes": process.memory_info().rss,
            "threads": process.num_threads(),
            "open_files": process.num_fds(),
        }


def gpu_stats() -> list[dict[str, Any]]:
    """Every GPU by NVML; empty without one, or without a driver. What a card does not tell is None."""
    nvml = nvml_library()
    if nvml is None:
        return []
    return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    power_mw = _try(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return {
        "index": index,
        "name": name.decode() if isinstance(name, bytes) else name,
        "utilisation_percent": _try(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "memory_total_bytes": memory.total,
        "memory_used_bytes": memory.used,
        "temperature_c": _try(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "power_w": None if power_mw is None else round(power_mw / 1000, 1),
    }


def _try(nvml: Any, read: Any) -> Any:
    try:
        return read()
    except nvml.NVMLError:
        return None


@cache
def nvml_library() -> Any:
    """NVML, ready to be asked; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
