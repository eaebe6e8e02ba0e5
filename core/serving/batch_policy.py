"""What to run next, as a function of values: natural batching with an optional delay.

A slot that is free takes what waits, up to `max_batch` items of the same inner shape, the most urgent first.
`max_delay_s` makes it wait for more, and no longer than that for the oldest. Priority 0 is the most urgent; a
request gains one level for every `ageing_s` it has waited, so that none starves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

AGEING_S = 0.5
_ALONE = (0,)


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How batches are made: `max_batch` in items, times in seconds."""

    max_batch: int = 32
    max_delay_s: float = 0.0
    ageing_s: float = AGEING_S


class Lane(NamedTuple):
    """Requests that may share a batch and have one priority: their oldest arrival, and their items."""

    shape: object
    priority: int
    oldest: float
    items: int


class Take(NamedTuple):
    """Run now: draw from these lanes, by their places in the sequence given, in this order."""

    lanes: tuple[int, ...]


class Wait(NamedTuple):
    """Nothing to run before this moment."""

    until: float


def decide(lanes: Sequence[Lane], now: float, policy: BatchPolicy, limit: int | None = None) -> Take | Wait | None:
    """Choose what a free slot does now; None when nothing waits. Times are of one monotonic clock.

    A batch is full at `limit` items, where that is less than `max_batch`.
    """
    if not lanes:
        return None
    same = _most_urgent(lanes, now, policy) if len(lanes) > 1 else _ALONE
    if policy.max_delay_s <= 0:
        return Take(same)
    ripe_at = min(lanes[i].oldest for i in same) + policy.max_delay_s
    full = sum(lanes[i].items for i in same) >= (limit or policy.max_batch)
    return Take(same) if full or now >= ripe_at else Wait(ripe_at)


def _most_urgent(lanes: Sequence[Lane], now: float, policy: BatchPolicy) -> tuple[int, ...]:
    """The places of the lanes that may share a batch with the most urgent one, the most urgent first."""
    order = sorted(range(len(lanes)), key=lambda i: (_urgency(lanes[i], now, policy), lanes[i].oldest))
    shape = lanes[order[0]].shape
    return tuple(i for i in order if lanes[i].shape == shape)


def _urgency(lane: Lane, now: float, policy: BatchPolicy) -> float:
    return lane.priority - (now - lane.oldest) / policy.ageing_s
