"""What can run models on this machine, and what to install for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastapi import Request
from starlette.responses import Response

from app.dashboard.guard import Viewer, pages
from app.dashboard.pages.system.tabs import SystemPage
from app.dashboard.rendering import render
from core.engines.base import EngineInfo
from core.engines.registry import list_engines

router = pages()


@dataclass(frozen=True, slots=True)
class EnginesPage(SystemPage):
    """Each engine, those that can be used first."""

    template: ClassVar[str] = "pages/system/engines.html"
    engines: Sequence[EngineInfo]

    @property
    def title(self) -> str:
        """See Page."""
        return "Engines"


@router.get("/system/engines")
async def engines(request: Request, _: Viewer) -> Response:
    """The engines."""
    found = await asyncio.to_thread(list_engines)
    return render(request, EnginesPage(sorted(found, key=lambda engine: not engine.available)))
