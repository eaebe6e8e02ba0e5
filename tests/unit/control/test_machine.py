"""What is told of the machine to Prometheus, also where a part of it does not answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.external.metrics_text import Observed, render
from core.control import machine
from core.control.machine import machine_metrics
from core.metrics import CPU_SECONDS, DISK_BYTES, GPU_BUSY_RATIO, GPU_MEMORY_BYTES, MACHINE_MEMORY_BYTES, Counts


class LostCard(Exception):
    """As NVML raises it."""


class Driver:
    """Stands in for NVML: the second of three cards does not answer, the third does not tell its load."""

    NVMLError = LostCard
    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 1:
            raise LostCard
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "card"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=1000, used=400)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 2:
            raise LostCard
        return SimpleNamespace(gpu=25)

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> int:
        return 40

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 1000


def test_the_machine_adds_up(tmp_path: Path) -> None:
    first, later = machine_metrics(tmp_path), machine_metrics(tmp_path)
    memory, disk = first[MACHINE_MEMORY_BYTES], first[DISK_BYTES]
    assert memory["total",] == psutil.virtual_memory().total
    assert 0 < memory["available",] < memory["total",]
    assert disk["total",] == psutil.disk_usage(str(tmp_path)).total
    assert disk["used",] + disk["free",] <= disk["total",]
    for mode in ("busy", "idle"):
        assert later[CPU_SECONDS][mode,] >= first[CPU_SECONDS][mode,] > 0
    # All cores since the start, as the kernel counts them.
    assert sum(first[CPU_SECONDS].values()) == pytest.approx(sum(psutil.cpu_times()[:8]), rel=0.01)


def test_a_lost_disk_or_card_takes_nothing_else_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvml_library", Driver)
    read = machine_metrics(tmp_path / "unmounted")
    assert read[DISK_BYTES] == {}
    assert read[MACHINE_MEMORY_BYTES]
    assert read[GPU_BUSY_RATIO] == {("0",): 0.25}
    assert set(read[GPU_MEMORY_BYTES]) == {(gpu, kind) for gpu in "02" for kind in ("used", "total")}
    text = render(Counts(), Observed(machine=read)).decode()
    assert 'pulvinar_gpu_memory_bytes{gpu="2",kind="used"} 400\n' in text
    assert 'pulvinar_gpu_busy_ratio{gpu="0"} 0.25\n' in text
    assert "# TYPE pulvinar_disk_bytes gauge" in text
