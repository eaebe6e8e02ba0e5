"""dashboard(): the pages for signed-in users, a module a page."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, FastAPI

from app.dashboard.guard import PageRoute
from app.dashboard.page import SECTIONS
from app.dashboard.pages import account, history, overview, pipeline_run, pipelines, search, second_factor, sharing
from app.dashboard.pages.access import addresses, audit, keys, tenants, tokens, usage, users
from app.dashboard.pages.models.routers import ROUTERS as MODELS
from app.dashboard.pages.playground import page as playground
from app.dashboard.pages.system.routers import ROUTERS as SYSTEM
from app.dashboard.problems import add_problem_pages

PREFIX: Final = "/dashboard"
ROUTERS: Final[tuple[APIRouter, ...]] = (
    overview.again,
    history.router,
    overview.router,
    *MODELS,
    account.router,
    second_factor.router,
    search.router,
    tokens.router,
    tenants.router,
    usage.router,
    users.router,
    addresses.router,
    keys.router,
    audit.router,
    playground.router,
    pipelines.router,
    pipeline_run.router,
    sharing.router,
    *SYSTEM,
)
"""A line a module of pages; what open pages ask again and again comes first, as routes are looked at in turn.
An entry of the left rail appears as soon as one of them answers at its path."""


def dashboard() -> FastAPI:
    """The app mounted at /dashboard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for router in ROUTERS:
        assert issubclass(router.route_class, PageRoute), "pages are guarded: make their router with guard.pages()"
        app.include_router(router)
    served = {
        f"{PREFIX}{route.path}" for router in ROUTERS for route in router.routes if isinstance(route, PageRoute)
    }
    app.state.sections = tuple(section for section in SECTIONS if section.path in served)
    add_problem_pages(app)
    return app
