"""In how many slots the siblings of one caller run, as a function of what that has taken here.

Their caller waits for the last of them. In one slot each run has all cores; side by side no thread waits for
another, but the last parts end unevenly. Which way ends first is a matter of the model and the machine.
"""

from __future__ import annotations

from typing import NamedTuple

from core.serving.batch_size_policy import FADE, TOLERANCE, TRY_EVERY, class_of
from core.serving.slot_policy import SlotBounds


class _Way(NamedTuple):
    """A class of sizes, and whether they run side by side."""

    size: int
    side_by_side: bool


class SiblingSlots:
    """Chooses the slots of each family, and learns from how long it took from its first start to its last end."""

    def __init__(self, bounds: SlotBounds) -> None:
        self._bounds = bounds
        self._item_s: dict[_Way, float] = {}
        self._families = 0

    def choose(self, items: int) -> int:
        """The slots for so many siblings that have the machine to themselves.

        As few as may be, unless more took clearly less; now and then the other way, so that neither is believed
        for ever.
        """
        few, many = self._bounds.least, min(self._bounds.most, max(self._bounds.least, items))
        together, apart = (self._item_s.get(_Way(class_of(items), way)) for way in (False, True))
        if few == many or together is None:
            return few
        if apart is None:
            return many
        self._families += 1
        better = apart < together * (1 - TOLERANCE)
        return many if better != (self._families % TRY_EVERY == 0) else few

    def observe(self, items: int, slots: int, seconds: float) -> None:
        """A family of so many took so long, with nobody beside it."""
        way, cost = _Way(class_of(items), slots > self._bounds.least), seconds / items
        known = self._item_s.get(way)
        self._item_s[way] = cost if known is None else min(cost, known * FADE)


class Family:
    """Siblings that began with the machine to themselves: their slots, and how far they are."""

    __slots__ = ("_left", "items", "since", "slots")

    def __init__(self, items: int, slots: int, since: float) -> None:
        self.items = items
        self.slots = slots
        self.since = since
        self._left = items

    def ended(self, items: int) -> bool:
        """So many have been run; whether these were the last. Never true once others ran beside them."""
        self._left -= items
        return self._left == 0
