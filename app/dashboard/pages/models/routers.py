"""The routers of all of it, in one place."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from app.dashboard.pages.models import (
    adding,
    deployment,
    imports,
    listing,
    live,
    logs,
    optimiser,
    samples,
    settings,
    versions,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    listing.router,
    adding.router,
    imports.router,
    live.router,
    versions.router,
    deployment.router,
    optimiser.router,
    samples.router,
    logs.router,
    settings.router,
)
"""In this order: the first three answer at addresses that no model's name can lead to."""
