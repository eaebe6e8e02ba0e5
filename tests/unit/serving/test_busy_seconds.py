"""What a run is taken to have cost, from how long it took and what its thread computed of that."""

from __future__ import annotations

import pytest

from core.serving.engine_worker import busy_seconds


@pytest.mark.parametrize(
    ("own_s", "threads", "cost_s"),
    [
        (0.6, 1, 0.6),  # others had the core for the rest
        (0.01, 1, 1.0),  # it waited for a device
        (0.6, 2, 1.0),  # it waited for its other thread
        (0.6, 0, 1.0),  # the engine has threads that nobody here knows of
    ],
)
def test_a_run_that_took_a_second(own_s: float, threads: int, cost_s: float) -> None:
    assert busy_seconds(1.0, own_s, threads) == cost_s


def test_a_short_run_is_hardly_divided_and_easily_disturbed() -> None:
    assert busy_seconds(0.004, 0.0008, 2) == 0.0008
