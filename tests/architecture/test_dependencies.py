"""What FastAPI resolves for a request runs on the event loop: a thread costs more than all that it does."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isasyncgenfunction, iscoroutinefunction, ismethod
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.dashboard.dashboard import ROUTERS
from app.main import external_api, internal_api
from core.settings import Settings


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    included = [one.original_router for one in app.router.routes if hasattr(one, "original_router")]
    for router in [app.router, *included]:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def _calls(dependant: Dependant) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)


def _waits(call: Any) -> bool:
    called = call if ismethod(call) or hasattr(call, "__code__") else type(call).__call__
    return iscoroutinefunction(called) or isasyncgenfunction(called)


def _dashboard() -> list[APIRoute]:
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


@pytest.mark.parametrize("part", ["internal", "external", "dashboard"])
def test_no_dependency_takes_a_thread(part: str) -> None:
    if part == "dashboard":
        routes = _dashboard()
    else:
        routes = list(_routes(internal_api(Settings()) if part == "internal" else external_api()))
    calls = {call for route in routes for call in _calls(route.dependant)}
    assert len(routes) > 5
    assert calls
    assert not [call.__qualname__ for call in calls if not _waits(call)]
