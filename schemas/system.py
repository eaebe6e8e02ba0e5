"""The machine, the engines and the audit log."""

from __future__ import annotations

from typing import Any

from pydantic import Field

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


class NodeAnswer(Answer):
    """One server of those that share the database. Times are by the database's clock."""

    name: str
    here: bool = Field(description="Whether it is the one that answers.")
    alive: bool
    silent_s: float = Field(description="Seconds since its last heart-beat; one comes every 5 s.")
    version: str
    address: str = Field(description="Where it listens.")
    workers: int
    started_at: Moment
    seen_at: Moment
    clock_ahead_ms: int = Field(description="How far its clock is ahead of the database's.")


class NodesAnswer(Answer):
    """All that are known: those that stopped in order have left, and a silent one is forgotten after a week."""

    nodes: list[NodeAnswer]


class ChainAnswer(Answer):
    """What a walk along the audit log found; without `findings` it is whole."""

    count: int
    last_hash: str
    findings: list[str]


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
