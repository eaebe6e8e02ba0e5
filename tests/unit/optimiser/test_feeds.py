"""Feeds that may take only so long, and only so much room."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.optimiser.converted import Tensors
from core.optimiser.feeds import Bounds


def _feeds(made: list[int]) -> Iterator[Tensors]:
    for number in range(10):
        made.append(number)
        yield {"x": np.zeros(256, np.float32)}


def test_all_come_where_there_is_room_and_time() -> None:
    bounds = Bounds(60, 10 << 10)
    assert len(list(bounds.of(_feeds([])))) == 10
    assert bounds.cut == ""


def test_no_more_bytes_than_allowed() -> None:
    bounds, made = Bounds(60, 3 << 10), []  # type: ignore[var-annotated]
    assert len(list(bounds.of(_feeds(made)))) == 3
    assert bounds.cut == "more would take over 0 MiB"
    assert len(made) == 4, "no more is made than that one too many"


def test_the_first_comes_in_any_case() -> None:
    for bounds in (Bounds(0, 1 << 30), Bounds(60, 1)):
        assert len(list(bounds.of(_feeds([])))) == 1
    late = Bounds(0, 1 << 30)
    list(late.of(_feeds([])))
    assert late.cut == "preparing more would take over 0 s"
