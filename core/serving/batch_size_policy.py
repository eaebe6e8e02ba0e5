"""How large a batch is worth being on this machine, as a function of what batches have cost.

On an accelerator a larger batch is nearly free; on a CPU it may take longer for each item than single ones do,
since its tensors no longer fit the caches. Then taking all that waits would cost throughput and latency alike.
"""

from __future__ import annotations

from collections.abc import Mapping

TOLERANCE = 0.05
"""A larger batch must save this part of the time of an item to be worth the wait for it."""
FADE = 1.02
"""By how much a cost grows when a batch was slower: others use the machine too, so the fastest tell the truth."""
EXPLORE_EVERY = 256
"""One in so many batches may be twice as large, to see whether it still costs what it did."""

TRY_EVERY = 16
"""One in so many batches of siblings is run in smaller or larger parts, in turn, to learn what those cost."""

Costs = Mapping[int, float]
"""Seconds an item, by batch size."""


def best_size(costs: Costs, max_batch: int) -> int:
    """The batch size to stay within: the smallest of those that cost the least, give or take TOLERANCE.

    Where the largest one seen is the best, twice as many may be better yet; no more than that at a time, for an
    engine keeps the memory of the largest batch it has run. While nothing can be compared, there is no limit.
    """
    seen = {size: cost for size, cost in costs.items() if size <= max_batch}
    if len(seen) < 2:
        return max_batch
    least = min(seen.values())
    size = min(size for size, cost in seen.items() if cost <= least * (1 + TOLERANCE))
    return min(max_batch, 2 * size) if size == max(seen) else size


def why(costs: Costs, max_batch: int) -> str | None:
    """Why batches stay smaller than asked for, as the end of a sentence; None where they need not."""
    size = best_size(costs, max_batch)
    tried = [s for s in costs if size < s <= max_batch]
    if not tried:
        return None
    larger = max(tried, key=lambda s: costs[s])
    ratio = costs[larger] / costs[size]
    if ratio > 1 + TOLERANCE:
        told = f"batches of {larger} take {ratio:.1f} times as long for each item as batches of {size}"
    else:
        told = f"batches of more than {size} are no faster for each item"
    return f"{told} on this machine, so at most {size} {'is' if size == 1 else 'are'} taken"


class BatchCosts:
    """What batches have cost, kept up to date."""

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch
        """What was asked for."""
        self.limit = max_batch
        """The batch size to stay within now."""
        self.usual = max_batch
        """The same, but for the batch in which a larger size is tried."""
        self.item_s: float | None = None
        """Seconds an item at the best size; None while nothing is known."""
        self._costs: dict[int, float] = {}
        self._batches = 0
        self._together = 0

    def observe(self, items: int, seconds: float) -> None:
        """Learn from one batch."""
        size = class_of(items)
        cost, known = seconds / items, self._costs.get(size)
        self._costs[size] = cost if known is None else min(cost, known * FADE)
        self._batches += 1
        self.item_s = min(self._costs.values())
        self.usual = best_size(self._costs, self.max_batch)
        self.limit = self.usual
        if self._batches % EXPLORE_EVERY == 0:
            self.limit = min(self.max_batch, 2 * self.usual)

    def together(self, items: int) -> int:
        """How many of so many to run at a time where nobody gets an answer before all are done.

        About as many as cost the least, in even runs. Now and then half or twice as many.
        """
        self._together += 1
        size = min(self._costs, key=self._costs.__getitem__) if len(self._costs) > 1 else self.max_batch
        if self._together % TRY_EVERY == 0:
            size = size // 2 if self._together % (2 * TRY_EVERY) else 2 * size
        runs = max(1, round(items / max(1, size)))
        return min(self.max_batch, -(-items // runs))

    @property
    def seconds_an_item(self) -> Costs:
        """What batches of each size cost, as far as they have been seen."""
        return self._costs

    def why(self) -> str | None:
        """See `why`."""
        return why(self._costs, self.max_batch)


def class_of(items: int) -> int:
    """Sizes that cost about the same: they are told apart up to 4, and beyond by the power of two below."""
    return items if items <= 4 else 1 << (items.bit_length() - 1)
