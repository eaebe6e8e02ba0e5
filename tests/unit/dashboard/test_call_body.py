"""The body of a call from the Playground, as large and as slow as the inference API lets one be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from app.dashboard.call_body import CallBody
from core.errors import BadRequest, TooLarge
from core.settings import Settings

LIMITS = {"max_body_bytes": 1024, "body_timeout_s": 0.01}
CHUNK = {"type": "http.request", "body": bytes(40_000), "more_body": True}
END = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


def read(messages: Sequence[dict[str, Any]], path: str = "/dashboard/playground/cats") -> list[dict[str, Any]]:
    """What an app behind it receives; after the last message nothing comes any more."""
    seen: list[dict[str, Any]] = []
    left = iter(messages)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(len(messages)):
            seen.append(await receive())
        if messages[-1] is CHUNK:
            await receive()

    async def receive() -> Any:
        message = next(left, None)
        return message if message is not None else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        raise AssertionError(message)

    platform = SimpleNamespace(settings=Settings.model_validate({"inference": LIMITS}))
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "state": {"platform": platform}}
    asyncio.run(asyncio.wait_for(CallBody(app)(scope, receive, send), 10))
    return seen


def test_a_body_within_the_caps_passes_and_leaving_is_heard() -> None:
    assert read([CHUNK, END, GONE]) == [CHUNK, END, GONE]


def test_what_comes_is_counted() -> None:
    with pytest.raises(TooLarge, match="MiB"):
        read([CHUNK, CHUNK, END])


def test_a_body_that_does_not_come_is_given_up() -> None:
    with pytest.raises(BadRequest, match=r"within 0\.01 seconds"):
        read([CHUNK])


def test_other_paths_are_left_alone() -> None:
    assert len(read([CHUNK, CHUNK, END], "/dashboard/pipelines/+new")) == 3
