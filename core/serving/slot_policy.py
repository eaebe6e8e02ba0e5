"""How many batches run side by side, and with how many threads each, as functions of values.

One run on all cores answers soonest; as many runs as cores, with one thread each, do the most work, since no
thread waits for another. So a request that is alone gets all cores, and the more full batches wait, the more
run at once. An engine is ready for several widths, so that a change costs nothing and each batch is decided
anew: there is nothing to be slow about, and nothing that could swing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SHORT_RUN_S = 0.00025
"""A run shorter than this is over before another thread has begun: then more slots only make smaller batches."""
SURELY_LONG_S = 0.001
"""A batch that took this long was no short run that waited for its thread, whatever was measured before."""
_WORTH_A_WIDTH = 0.75
"""An engine gets a width of its own where it has at most this part of the threads of the one before."""


@dataclass(frozen=True, slots=True)
class SlotBounds:
    """At least and at most so many batches side by side, on so many cores."""

    least: int = 1
    most: int = 1
    cores: int = 1

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to follow."""
        return self.least == self.most


class Demand(NamedTuple):
    """What there is to do: items and requests that run, wait or are being prepared."""

    items: int
    requests: int
    limit: int = 1
    """Items that one batch may hold."""
    item_s: float | None = None
    """What one item costs the whole machine, in seconds; None where it is not known."""
    last_s: float = 0.0
    """How long the last batch took."""


def slots_for(demand: Demand, bounds: SlotBounds) -> int:
    """How many batches may run side by side now.

    One for each batch that would be full: what fits the next batch had better wait for it. And no more than there
    are requests, since one request is run in one slot.
    """
    if bounds.fixed:
        return bounds.most
    if _is_short(demand):
        return bounds.least
    wanted = min(demand.items // demand.limit, demand.requests)
    return max(bounds.least, min(bounds.most, wanted))


def _is_short(demand: Demand) -> bool:
    if demand.item_s is None or demand.last_s >= SURELY_LONG_S:
        return False
    return demand.item_s * demand.limit < SHORT_RUN_S


def threads_for(slots: int, bounds: SlotBounds) -> int:
    """The threads that a run may use when so many run side by side: its own, and the helpers that all share.

    Together they are as many as there are cores: 8 cores and 3 slots are 3 threads and 5 helpers.
    """
    return max(1, bounds.cores - slots + 1)


def widths(bounds: SlotBounds) -> tuple[int, ...]:
    """The numbers of threads that an engine should be ready for, the largest first."""
    slots = bounds.least
    found = [threads_for(slots, bounds)]
    while slots < bounds.most:
        slots = min(2 * slots, bounds.most)
        threads = threads_for(slots, bounds)
        if threads <= found[-1] * _WORTH_A_WIDTH:
            found.append(threads)
    return tuple(found)


def share(threads: int, busy: int, bounds: SlotBounds) -> float:
    """The part of the cores that a run of so many threads has while `busy` run, itself among them."""
    return min((threads - 1) / busy + 1, max(1.0, bounds.cores / busy)) / max(bounds.cores, 1)
