"""Closed and open loop over a call that blocks: each caller is a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from app.bench.figures import Samples
from app.bench.loops import GRACE_S
from core.errors import PlatformError

Call = Callable[[], object]
"""One call; may be made from several threads. Raises PlatformError."""


async def closed_loop(call: Call, callers: int, seconds: float) -> Samples:
    """So many threads call again as soon as they have their answer. See `loops.closed_loop`."""
    samples, stop = Samples(), threading.Event()
    began = time.perf_counter()
    end = began + seconds

    def caller() -> None:
        while (sent := time.perf_counter()) < end and not stop.is_set():
            _timed(call, sent, samples)

    await _in_threads(caller, callers, stop)
    samples.elapsed_s = time.perf_counter() - began
    return samples


async def open_loop(call: Call, callers: int, arrivals: Sequence[float], seconds: float) -> Samples:
    """Threads take the calls as they become due. See `loops.open_loop`."""
    samples, stop, lock = Samples(), threading.Event(), threading.Lock()
    left: Iterator[float] = iter(arrivals)
    began = time.perf_counter()
    end = began + seconds + GRACE_S

    def caller() -> None:
        while not stop.is_set():
            with lock:
                arrival = next(left, None)
            if arrival is None:
                return
            due = began + arrival
            early = due - time.perf_counter()
            if early > 0 and stop.wait(early):
                return
            now = time.perf_counter()
            if now >= end:
                samples.unsent_ms.append((now - due) * 1000)
                continue
            samples.late_ms.append((now - due) * 1000)
            _timed(call, due, samples)

    await _in_threads(caller, callers, stop)
    samples.elapsed_s = max(seconds, time.perf_counter() - began)
    return samples


async def _in_threads(caller: Callable[[], None], count: int, stop: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(count, "bench caller") as threads:
        try:
            await asyncio.gather(*[loop.run_in_executor(threads, caller) for _ in range(count)])
        finally:
            stop.set()  # who is interrupted waits for the calls under way, and for no more


def _timed(call: Call, since: float, samples: Samples) -> None:
    try:
        call()
    except PlatformError as error:
        samples.errors[error.message] += 1  # seldom: two at once may count as one
    else:
        samples.took_ms.append((time.perf_counter() - since) * 1000)
