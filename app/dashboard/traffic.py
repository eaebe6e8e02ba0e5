"""Which versions of a model are in service, and which part of the callers each of them answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.dashboard import words


@dataclass(frozen=True, slots=True)
class Share:
    """A version in service: its part of the traffic from 0 to 1, or none for a shadow."""

    version: int
    part: float | None


def shares_of(traffic: Sequence[Mapping[str, object]]) -> tuple[Share, ...]:
    """The versions of a deployment, the largest part first, shadows last."""
    live = {int(str(one["version"])): float(str(one["weight"])) for one in traffic if one["mode"] == "live"}
    whole = sum(live.values()) or 1.0
    shadows = [int(str(one["version"])) for one in traffic if one["mode"] != "live"]
    parts = sorted(live.items(), key=lambda one: -one[1])
    return (
        *(Share(version, weight / whole) for version, weight in parts),
        *(Share(version, None) for version in shadows),
    )


def in_words(traffic: Sequence[Mapping[str, object]]) -> str:
    """`v3`, or `v3 90 %, v4 10 %`, or `v3, v4 shadow`."""
    return ", ".join(_told(one) for one in shares_of(traffic))


def _told(share: Share) -> str:
    if share.part is None:
        return f"v{share.version} shadow"
    return f"v{share.version}" if share.part == 1 else f"v{share.version} {words.percent(share.part)}"
