"""What to run next, as a function of values: natural batching with an optional delay.

A slot that is free takes what waits, up to `max_batch` items of the same inner shape, the most urgent first.
`max_delay_s` makes it wait for more, and no longer than that for the oldest. Priority 0 is the most urgent; a
request gains one level for every `ageing_s` it has waited, so that none starves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from core.serving.ragged import CPU_TOKENS

AGEING_S = 0.5
_ALONE = (0,)


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How batches are made: `max_batch` in items, `max_tokens` in units of length, times in seconds."""

    max_batch: int = 32
    max_tokens: int = CPU_TOKENS
    max_delay_s: float = 0.0
    ageing_s: float = AGEING_S


class Lane(NamedTuple):
    """Requests that may share a batch and have one priority: their oldest arrival, items, and lengths in all."""

    shape: object
    priority: int
    oldest: float
    items: int
    tokens: int = 0


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
    full = full or sum(lanes[i].tokens for i in same) >= policy.max_tokens
    return Take(same) if full or now >= ripe_at else Wait(ripe_at)


def part_of_siblings(siblings: int, waiting: int, slots: int, max_batch: int) -> int:
    """How many of the waiting siblings a free slot takes: its share of those that are left.

    So the first parts are large and the last ones small, and all slots end at about the same time (guided
    self-scheduling, Polychronopoulos and Kuck 1987). 0 where others wait too: they would wait for all of a part.
    """
    if siblings < 2 or siblings < waiting:
        return 0
    return min(max_batch, math.ceil(siblings / max(1, slots)))


def _most_urgent(lanes: Sequence[Lane], now: float, policy: BatchPolicy) -> tuple[int, ...]:
    """The places of the lanes that may share a batch with the most urgent one, the most urgent first."""
    order = sorted(range(len(lanes)), key=lambda i: (_urgency(lanes[i], now, policy), lanes[i].oldest))
    shape = lanes[order[0]].shape
    return tuple(i for i in order if lanes[i].shape == shape)


def _urgency(lane: Lane, now: float, policy: BatchPolicy) -> float:
    return lane.priority - (now - lane.oldest) / policy.ageing_s
