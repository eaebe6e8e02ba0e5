from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from core.errors import (
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    InvalidInput,
    PlatformError,
    QueueFull,
    RunFailed,
    ShuttingDown,
)
from core.serving.version_health import VersionHealth, merge


@pytest.mark.parametrize(
    ("error", "own_deadline", "counts"),
    [
        (RunFailed("x"), True, True),
        (EngineUnavailable("x"), True, True),
        (PlatformError("x"), True, True),
        (ZeroDivisionError(), True, True),
        (DeadlineExceeded("x"), True, True),
        (DeadlineExceeded("x"), False, False),
        (InvalidInput("x"), True, False),
        (QueueFull("x"), True, False),
        (ShuttingDown("x"), True, False),
        (asyncio.CancelledError(), True, False),
    ],
)
def test_whose_fault_it_is(error: BaseException, own_deadline: bool, counts: bool) -> None:
    health = VersionHealth()
    health.failed(error, own_deadline=own_deadline)
    assert (health.requests, health.errors) == ((1, 1) if counts else (0, 0))
    assert health.broken == int(isinstance(error, EngineError))


def test_counts_and_latency() -> None:
    health = VersionHealth()
    for ms in (10.0, 20.0, 30.0):
        health.answered(ms)
    health.failed(RunFailed("x"))
    assert health.snapshot() == {"requests": 4, "errors": 1, "broken": 1, "total_ms": 60.0, "recent_ms": 20.0}
    for _ in range(1000):
        health.answered(5.0)
    assert health.recent_ms == pytest.approx(5.0, abs=0.01), "what was long ago is forgotten"


def test_merging_processes() -> None:
    shadow = {"compared": 2, "agreed": 1, "max_abs_difference": 0.5}
    one = {"1": {"requests": 10, "errors": 0, "broken": 0, "total_ms": 100.0, "recent_ms": 10.0}}
    two = {
        "1": {"requests": 32, "errors": 2, "broken": 1, "total_ms": 600.0, "recent_ms": 20.0, "shadow": shadow},
        "2": {"requests": 0, "errors": 0, "broken": 0, "total_ms": 0.0, "recent_ms": 0.0},
    }
    merged = merge([one, two, {}])
    assert merged == {
        "1": {"requests": 42, "errors": 2, "broken": 1, "total_ms": 700.0, "recent_ms": 17.5, "shadow": shadow},
        "2": two["2"],
    }
    assert merge([merged, two])["1"]["shadow"] == {"compared": 4, "agreed": 2, "max_abs_difference": 0.5}
    assert orjson.loads(orjson.dumps(merged)) == merged, "fit for a socket"
    assert merge([]) == {}


def test_counting_costs_next_to_nothing() -> None:
    health = VersionHealth()
    rounds = 20_000
    best_s = 1.0
    for _ in range(5):
        before = time.perf_counter()
        for _ in range(rounds):
            health.answered(1.0)
        best_s = min(best_s, time.perf_counter() - before)
    assert best_s / rounds < 2e-6  # a fraction of a microsecond; the limit leaves room for a busy machine
