"""What models take of the machine's memory: measured, or guessed before it can be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import psutil

from core.control.hosted import HostedRunner
from core.control.machine import nvml_library
from core.serving.deployment import Deployment

PROCESS_BYTES = 64 << 20
"""What a host takes beside its model, as long as nothing was measured."""
LOADED_TO_FILE = 1.5
"""The same for what a model takes in memory, over its size in the store."""
_CGROUP = Path("/sys/fs/cgroup")


async def measure(deployment: Deployment) -> tuple[int, int | None, bool]:
    """Bytes of host memory, and of GPU memory where that is known, that closing it would give back.

    The last is whether that is certain: what is loaded beside others in one process can only be told apart from
    them when it is loaded alone.
    """
    runner = deployment.runner
    if isinstance(runner, HostedRunner):
        pid = runner.process.pid
        if pid is None:
            return 0, None, False
        return await asyncio.to_thread(process_bytes, pid), await asyncio.to_thread(gpu_bytes, pid), True
    return (await runner.stats()).memory_bytes, None, False


async def measure_host(deployment: Deployment) -> int:
    """Bytes of a host's memory now; 0 where there is no host, or it is away."""
    runner = deployment.runner
    pid = runner.process.pid if isinstance(runner, HostedRunner) else None
    return 0 if pid is None else await asyncio.to_thread(process_bytes, pid)


def guess(size_bytes: int, *, hosted: bool) -> int:
    """What a version of this size in the store may take, in a process of its own or beside others."""
    return round(size_bytes * LOADED_TO_FILE) + (PROCESS_BYTES if hosted else 0)


def process_bytes(pid: int) -> int:
    """Memory of a process, what it shares counted in parts (PSS); its resident memory where that is not told.

    Linux, Documentation/filesystems/proc.rst, `smaps_rollup`. 0 for a process that is gone.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def gpu_bytes(pid: int) -> int | None:
    """What a process holds on all GPUs, by NVML; None where there is none, or it does not tell."""
    nvml = nvml_library()
    if nvml is None:
        return None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        processes = [one for handle in handles for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except nvml.NVMLError:
        return None
    held = [one.usedGpuMemory for one in processes if one.pid == pid and one.usedGpuMemory is not None]
    return sum(held) if held else None


def node_bytes(cgroup: Path = _CGROUP) -> int:
    """The memory that this node may use: the machine's, or less where its container's limit is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):  # not limited, or nobody says
        return total
