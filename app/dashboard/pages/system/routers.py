"""The routers of the section System."""

from __future__ import annotations

from typing import Final

from app.dashboard.pages.system import about, engines, machine, nodes, settings

ROUTERS: Final = (machine.router, nodes.router, engines.router, settings.router, about.router)
