"""The traffic of a deployment as people read it."""

from __future__ import annotations

from typing import Any

import pytest

from app.dashboard.traffic import in_words

SPACE = "\N{NARROW NO-BREAK SPACE}"


def part(version: int, weight: float, mode: str = "live") -> dict[str, Any]:
    return {"version": version, "weight": weight, "mode": mode}


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ([], ""),
        ([part(3, 1.0)], "v3"),
        ([part(3, 90.0), part(4, 10.0)], f"v3 90{SPACE}%, v4 10{SPACE}%"),
        ([part(4, 0.1), part(3, 0.9)], f"v3 90{SPACE}%, v4 10{SPACE}%"),
        ([part(4, 1.0, "shadow"), part(3, 5.0)], "v3, v4 shadow"),
    ],
)
def test_weights_are_parts_of_the_whole(traffic: list[dict[str, Any]], said: str) -> None:
    assert in_words(traffic) == said
