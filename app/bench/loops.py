"""Closed and open loop over callers that await their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from app.bench.figures import Samples
from app.bench.schedule import Metronome
from core.errors import PlatformError

Ask = Callable[[], Awaitable[None]]
"""One call; raises PlatformError where it was not answered well."""

GRACE_S = 0.1
"""What is due at the very end may still be sent."""


async def closed_loop(asks: Sequence[Ask], seconds: float) -> Samples:
    """Each caller asks again as soon as it is answered, for so many seconds."""
    samples = Samples()
    began = time.perf_counter()
    end = began + seconds

    async def caller(ask: Ask) -> None:
        while (sent := time.perf_counter()) < end:
            if not await _timed(ask, sent, samples):
                await asyncio.sleep(0.001)  # a refusal costs next to nothing: do not only count those

    async with asyncio.TaskGroup() as group:
        for ask in asks:
            group.create_task(caller(ask))
    samples.elapsed_s = time.perf_counter() - began
    return samples


async def open_loop(asks: Sequence[Ask], arrivals: Sequence[float], seconds: float) -> Samples:
    """Calls are sent when they are due, by whichever caller is free, and timed from when they were due.

    So one that had to wait for a caller counts its waiting (no coordinated omission). Those still unsent a moment
    after `seconds` are only counted, with how overdue they are.
    """
    samples = Samples()
    waiting: asyncio.Queue[float | None] = asyncio.Queue()
    began = time.perf_counter()
    end = began + seconds + GRACE_S

    async def caller(ask: Ask) -> None:
        while (due := await waiting.get()) is not None:
            now = time.perf_counter()
            if now >= end:
                samples.unsent_ms.append((now - due) * 1000)
                continue
            samples.late_ms.append((now - due) * 1000)
            await _timed(ask, due, samples)

    metronome = Metronome(arrivals, began, waiting.put_nowait)
    try:
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                group.create_task(caller(ask))
            await asyncio.sleep(seconds)
            await asyncio.to_thread(metronome.join)
            for _ in asks:
                waiting.put_nowait(None)
    finally:
        metronome.stop()
    samples.elapsed_s = max(seconds, time.perf_counter() - began)
    return samples


async def _timed(ask: Ask, since: float, samples: Samples) -> bool:
    try:
        await ask()
    except PlatformError as error:
        samples.errors[error.message] += 1
        return False
    samples.took_ms.append((time.perf_counter() - since) * 1000)
    return True
