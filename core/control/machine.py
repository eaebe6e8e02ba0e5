"""What the machine and this process are doing now: CPU, memory, disk, GPUs."""

from __future__ import annotations

import os
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import psutil

from core.metrics import CPU_SECONDS, DISK_BYTES, GPU_BUSY_RATIO, GPU_MEMORY_BYTES, MACHINE_MEMORY_BYTES, Metric


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


def machine_metrics(data_dir: Path) -> dict[Metric, dict[tuple[str, ...], float]]:
    """The same for Prometheus, by the values of the metrics' labels; blocking, a fraction of a millisecond.

    CPU is counted in seconds since the machine's start, so that several readers do not disturb each other. What
    cannot be read is left out: a lost disk or GPU must not take the other metrics with it.
    """
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    # `guest` is counted in `user` already.
    busy_s = sum(times) - idle_s - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    gpus = _gpus_that_answer()
    return {
        CPU_SECONDS: {("busy",): round(busy_s, 2), ("idle",): round(idle_s, 2)},
        MACHINE_MEMORY_BYTES: {
            ("used",): memory.used,
            ("available",): memory.available,
            ("total",): memory.total,
        },
        DISK_BYTES: _disk(data_dir),
        GPU_MEMORY_BYTES: {
            (str(gpu["index"]), kind): gpu[f"memory_{kind}_bytes"] for gpu in gpus for kind in ("used", "total")
        },
        GPU_BUSY_RATIO: {
            (str(gpu["index"]),): gpu["utilisation_percent"] / 100
            for gpu in gpus
            if gpu["utilisation_percent"] is not None
        },
    }


def _disk(data_dir: Path) -> dict[tuple[str, ...], float]:
    try:
        disk = psutil.disk_usage(str(data_dir))
    except OSError:
        return {}
    return {("free",): disk.free, ("used",): disk.used, ("total",): disk.total}


def _gpus_that_answer() -> list[dict[str, Any]]:
    nvml = nvml_library()
    if nvml is None:
        return []
    read = (_try(nvml, partial(_gpu, nvml, index)) for index in range(_try(nvml, nvml.nvmlDeviceGetCount) or 0))
    return [gpu for gpu in read if gpu is not None]


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
