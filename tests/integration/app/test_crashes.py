"""What nobody expected leaves in the words of the API, with the request's id, and nothing of what it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import app.main as main
from app.main import create_app
from core.settings import Settings

Make = Callable[..., FastAPI]


@pytest.mark.parametrize(
    ("maker", "path", "oip"),
    [
        ("internal_api", "/api/v1/internal/boom", False),
        ("external_api", "/api/v1/boom", False),
        ("external_api", "/v2/boom", True),
    ],
)
def test_an_exception_nobody_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, maker: str, path: str, oip: bool
) -> None:
    make: Make = getattr(main, maker)

    def with_a_bad_route(*arguments: Settings) -> FastAPI:
        api = make(*arguments)
        api.add_api_route(path.removeprefix("/api/v1/internal"), boom)
        return api

    monkeypatch.setattr(main, maker, with_a_bad_route)
    answer = asyncio.run(_get(create_app(Settings(data_dir=tmp_path)), path))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    error = answer.json()["error"]
    message = error if oip else error.pop("message")
    assert message.startswith("An unexpected error")
    if not oip:
        assert error == {"code": "internal", "request_id": "mine"}


async def boom() -> None:
    raise ZeroDivisionError("a secret of /tmp/place")


async def _get(application: main.ASGIApp, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(application)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers={"X-Request-ID": "mine"})
