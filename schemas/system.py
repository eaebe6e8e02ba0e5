"""The machine, the engines and the audit log."""

from __future__ import annotations

from typing import Any

from schemas.base import Answer, Moment


class CpuAnswer(Answer):
    """Utilisation in per cent, for all cores together and each."""

    cores: int
    percent: float
    per_core: list[float]
    load_average: list[float]


class MemoryAnswer(Answer):
    """Bytes of the machine."""

    total_bytes: int
    used_bytes: int
    available_bytes: int


class DiskAnswer(Answer):
    """Bytes of the file system that holds the data directory."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


class GpuAnswer(Answer):
    """One GPU, by NVML."""

    index: int
    name: str
    utilisation_percent: int | None
    memory_total_bytes: int
    memory_used_bytes: int
    temperature_c: int | None
    power_w: float | None


class ProcessAnswer(Answer):
    """This server."""

    pid: int
    uptime_s: float
    rss_bytes: int
    threads: int
    open_files: int


class ModelRate(Answer):
    """Traffic of one model since the server started, and over the last minute."""

    model: str
    requests: int
    errors: int
    requests_per_s: float
    mean_ms: float


class StatsAnswer(Answer):
    """All of it."""

    version: str
    cpu: CpuAnswer
    memory: MemoryAnswer
    disk: DiskAnswer
    gpus: list[GpuAnswer]
    process: ProcessAnswer
    models: list[ModelRate]


class EngineAnswer(Answer):
    """One engine: usable here, or why not and what to install."""

    name: str
    available: bool
    version: str | None
    devices: list[str]
    precisions: list[str]
    reason: str | None
    hint: str | None


class EnginesAnswer(Answer):
    """All engines."""

    engines: list[EngineAnswer]


class AuditAnswer(Answer):
    """One change."""

    id: int
    at: Moment
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    address: str
    request_id: str
