"""The machine and the engines."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

from fastapi import APIRouter

from app.dependencies import House, Viewer
from app.tallies import traffic_of
from core.control.machine import machine_stats
from core.control.nodes import list_nodes
from core.engines.registry import list_engines
from schemas.system import EngineAnswer, EnginesAnswer, ModelRate, NodeAnswer, NodesAnswer, StatsAnswer

router = APIRouter(prefix="/system", tags=["system"])


@router.get("/stats", summary="Machine, process and traffic")
async def stats(_: Viewer, house: House) -> StatsAnswer:
    """CPU, memory, disk, GPUs, this process, and the traffic of each model."""
    now = time.time()
    machine = await asyncio.to_thread(machine_stats, house.settings.data_dir, house.started_at)
    models = [
        ModelRate(
            model=name,
            requests=traffic.requests,
            errors=traffic.errors,
            requests_per_s=round(traffic.rate(now), 2),
            mean_ms=round(traffic.total_ms / max(1, traffic.requests), 3),
        )
        for name, traffic in sorted(traffic_of(house, await house.reconciler.totals()).items())
    ]
    return StatsAnswer.model_validate({"version": version("pulvinar"), **machine, "models": models})


@router.get("/engines", summary="Engines, and what is missing")
async def engines(_: Viewer) -> EnginesAnswer:
    """Each engine: usable here or not, its version and devices, and what to install."""
    infos = await asyncio.to_thread(list_engines)
    return EnginesAnswer(engines=[EngineAnswer.model_validate(info) for info in infos])


@router.get("/nodes", summary="Servers on this database")
async def nodes(_: Viewer, house: House) -> NodesAnswer:
    """Each server with its last heart-beat; one that was not heard of for 20 s is not `alive`."""
    found = await list_nodes(house.database)
    items = [
        NodeAnswer(
            name=state.row.name,
            here=state.row.name == house.node,
            alive=state.alive,
            silent_s=state.silent_s,
            version=state.row.version,
            address=state.row.address,
            workers=state.row.workers,
            started_at=state.row.started_at,
            seen_at=state.row.seen_at,
            clock_ahead_ms=state.row.clock_ahead_ms,
        )
        for state in found
    ]
    return NodesAnswer(nodes=items)
