"""One timer ends all that has waited too long, and nothing else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from core.serving.deadlines import Deadlines


@dataclass(eq=False)
class Item:
    deadline: float


async def _run(
    offsets_s: list[float], discard: int | None = None
) -> tuple[list[Item], list[Item], dict[Item, float]]:
    """Items with these deadlines from now; answers them, those that expired in order, and how late each was."""
    ended: list[Item] = []
    late: dict[Item, float] = {}
    over = asyncio.Event()
    expected = len(offsets_s) - (discard is not None)

    def expire(item: Item) -> None:
        ended.append(item)
        late[item] = time.monotonic() - item.deadline
        if len(ended) == expected:
            over.set()

    deadlines = Deadlines[Item](asyncio.get_running_loop(), expire)
    now = time.monotonic()
    items = [Item(now + offset) for offset in offsets_s]
    for item in items:
        deadlines.add(item)
    if discard is not None:
        deadlines.discard(items[discard])
        deadlines.discard(items[discard])
    async with asyncio.timeout(5):
        await over.wait()
    return items, ended, late


def test_each_ends_at_its_own_deadline_whatever_the_order_of_coming() -> None:
    items, ended, late = asyncio.run(_run([0.06, 0.02, 0.04, -1.0]))
    assert ended == sorted(items, key=lambda item: item.deadline)
    assert min(late.values()) >= 0, "none ends early"


def test_one_that_was_discarded_does_not_end_and_the_others_still_do() -> None:
    items, ended, _ = asyncio.run(_run([0.01, 0.03, 0.05], discard=0))
    assert ended == items[1:]


def test_after_clearing_nothing_ends_and_new_ones_are_watched() -> None:
    async def work() -> list[Item]:
        ended: list[Item] = []
        over = asyncio.Event()

        def expire(item: Item) -> None:
            ended.append(item)
            over.set()

        deadlines = Deadlines[Item](asyncio.get_running_loop(), expire)
        deadlines.add(Item(time.monotonic() + 0.01))
        deadlines.clear()
        last = Item(time.monotonic() + 0.03)
        deadlines.add(last)
        async with asyncio.timeout(5):
            await over.wait()
        assert ended == [last]
        return ended

    assert len(asyncio.run(work())) == 1
