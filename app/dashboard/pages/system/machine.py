"""CPU, memory, disk and GPUs of this node, and which model takes how much of its memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastapi import Request
from starlette.responses import Response

from app.bounds import memory_budget
from app.dashboard.guard import Viewer, pages
from app.dashboard.pages.system.tabs import SystemPage
from app.dashboard.rendering import fragment, render
from app.dashboard.words import size
from app.dependencies import House
from app.state import Platform
from core.control.machine import machine_stats
from schemas.system import CpuAnswer, DiskAnswer, GpuAnswer, MemoryAnswer, ProcessAnswer

router = pages()
_MOST = 8
"""So many models have a part of the bar of their own; the rest share one."""
_PART = "pages/system/machine.html"


@dataclass(frozen=True, slots=True)
class MachinePage(SystemPage):
    """One reading of the machine."""

    template: ClassVar[str] = "pages/system/page.html"
    cpu: CpuAnswer
    memory: MemoryAnswer
    disk: DiskAnswer
    gpus: Sequence[GpuAnswer]
    process: ProcessAnswer
    models: Sequence[tuple[str, int, str]]
    """Name, bytes and words of each part of the memory's bar, the largest first."""
    taken_bytes: int
    budget_bytes: int
    """Of all models together; 0 where it is not limited."""

    @property
    def whole_bytes(self) -> int:
        """What the full width of the memory's bar stands for."""
        return max(self.taken_bytes, self.budget_bytes or self.memory.total_bytes)


@router.get("/system")
async def machine(request: Request, _: Viewer, house: House) -> Response:
    """The machine."""
    return render(request, await _read(house))


@router.get("/system/machine")
async def machine_part(request: Request, _: Viewer, house: House) -> Response:
    """Its figures alone, read anew."""
    return fragment(request, _PART, await _read(house))


async def _read(house: Platform) -> MachinePage:
    stats = await asyncio.to_thread(machine_stats, house.settings.data_dir, house.started_at)
    taken = {name: sum(versions.values()) for name, versions in house.reconciler.memory().items()}
    return MachinePage(
        cpu=CpuAnswer.model_validate(stats["cpu"]),
        memory=MemoryAnswer.model_validate(stats["memory"]),
        disk=DiskAnswer.model_validate(stats["disk"]),
        gpus=[GpuAnswer.model_validate(gpu) for gpu in stats["gpus"]],
        process=ProcessAnswer.model_validate(stats["process"]),
        models=memory_parts(taken),
        taken_bytes=sum(taken.values()),
        budget_bytes=memory_budget(house.settings),
    )


def memory_parts(taken: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Parts of one bar from the bytes of each model: the largest first, the smallest as one."""
    ordered = sorted(((name, held) for name, held in taken.items() if held), key=lambda one: (-one[1], one[0]))
    parts = [(name, held, size(held)) for name, held in ordered[:_MOST]]
    rest = [held for _, held in ordered[_MOST:]]
    if rest:
        parts.append((f"{len(rest)} more", sum(rest), size(sum(rest))))
    return parts
