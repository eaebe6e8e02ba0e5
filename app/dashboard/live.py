"""Figures that move: one computation a second for all who watch, and none when nobody does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
import structlog

from app.dashboard.figures import Figures, ModelFigures, Point, figures_of, point_of
from app.observation import read
from app.readings import Reading, Step, step_between
from app.state import Platform
from core.errors import PlatformError, Unavailable

log = structlog.get_logger(__name__)

EVERY_S: Final = 1.0
EDITION_S: Final = 1.0
"""So long figures wait to hear whether the rest of the page is another."""
MAX_LISTENERS: Final = 100
LIFE_S: Final = 600.0
"""A listener is let go after so long and comes back by itself: who may not watch any more is found out then."""


class Live:
    """Listeners wait for the next figures; whoever is slow misses some, and nothing queues up."""

    def __init__(self, parts: Callable[[Platform], Awaitable[str]]) -> None:
        """`parts` says in a word which parts a page would have now; another one where they are others."""
        self._parts = parts
        self._listeners = 0
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] | None = None
        self._before: Reading | None = None
        self._told: Mapping[str, ModelFigures] = {}
        self._edition = ""
        self._pointed_at = 0.0

    async def events(self, platform: Platform) -> AsyncGenerator[bytes, None]:
        """An event stream: `data:` lines of JSON, once a second at most. Raises Unavailable when it is full."""
        if self._listeners >= MAX_LISTENERS:
            raise Unavailable("As many pages as can be kept live are open already.", retry_after_s=30)
        self._listeners += 1
        try:
            if self._task is None or self._task.done():
                self._next = asyncio.get_running_loop().create_future()
                self._task = asyncio.create_task(self._run(platform), name="live figures")
            ends = asyncio.get_running_loop().time() + LIFE_S
            yield b"retry: 3000\n\n"
            while asyncio.get_running_loop().time() < ends and not platform.leaving:
                assert self._next is not None
                yield await asyncio.shield(self._next)
        finally:
            self._listeners -= 1
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self, platform: Platform) -> None:
        failed = False
        while not platform.leaving:
            try:
                self._tell(await self._figures(platform))
                failed = False
            except Exception as error:  # whoever listens would wait for ever
                if not failed:
                    log.warning("live.postponed", exc_info=not isinstance(error, PlatformError), reason=str(error))
                failed = True
            await asyncio.sleep(EVERY_S)
        self._send(b": the server stops\n\n")

    async def _figures(self, platform: Platform) -> Figures:
        reading = await read(platform)
        before, self._before = self._before, reading
        if before is None or reading.at - before.at > 10:
            before = platform.recorder.last or reading
        with contextlib.suppress(PlatformError, TimeoutError):  # figures go on moving without the database
            async with asyncio.timeout(EDITION_S):
                self._edition = await self._parts(platform)
        figures = figures_of(platform, step_between(before, reading), reading)
        return replace(figures, parts=self._edition, point=self._point(platform.recorder.steps))

    def _point(self, steps: Sequence[Step]) -> Point | None:
        if not steps or steps[-1].at == self._pointed_at:
            return None
        self._pointed_at = steps[-1].at
        return point_of(steps[-1])

    def _tell(self, figures: Figures) -> None:
        # Of hundreds of models most stand still; what a page shows of those is what it was written with.
        moved = {name: one for name, one in figures.models.items() if self._told.get(name) != one}
        self._told = figures.models
        self._send(b"data: " + orjson.dumps(replace(figures, models=moved)) + b"\n\n")

    def _send(self, event: bytes) -> None:
        loop = asyncio.get_running_loop()
        told, self._next = self._next, loop.create_future()
        if told is not None and not told.done():
            told.set_result(event)


def sse_headers() -> dict[str, Any]:
    """Nothing on the way may keep it back."""
    return {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
