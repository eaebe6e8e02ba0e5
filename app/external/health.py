"""Whether the process runs, and whether it serves all that it should. Public; names no models to strangers."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response

from app.state import platform_of

router = APIRouter(prefix="/health", tags=["health"])


@router.get("", summary="A summary")
async def health(request: Request) -> dict[str, Any]:
    """Status, version, and how many deployments serve and wait."""
    platform = platform_of(request)
    waiting = platform.not_ready()
    ready = platform.reconciler.caught_up.is_set() and not waiting and not platform.stopping
    return {
        "status": "ok" if ready else "degraded",
        "version": version("pulvinar"),
        "uptime_s": round(time.time() - platform.started_at, 1),
        "serving": len(platform.catalogue.targets()),
        "not_ready": len(waiting),
    }


@router.get("/live", summary="Does the process run?")
async def live() -> dict[str, str]:
    """200 while the process answers at all."""
    return {"status": "live"}


@router.get("/ready", summary="Does it serve all that it should?", responses={503: {"description": "Not yet."}})
async def ready(request: Request, response: Response) -> dict[str, Any]:
    """200 when every deployment desired as running has a live version; otherwise 503 with the list of others."""
    platform = platform_of(request)
    if platform.stopping:
        response.status_code = 503
        return {"status": "stopping", "not_ready": {}}
    waiting = platform.not_ready()
    if waiting or not platform.reconciler.caught_up.is_set():
        response.status_code = 503
        return {"status": "not ready", "not_ready": waiting}
    return {"status": "ready", "not_ready": {}}
