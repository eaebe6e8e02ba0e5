"""Who must leave memory, and when. Functions of values; the reconciler acts on them.

Sizes are bytes, times seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """Memory that one model holds, or that is set aside for it."""

    model: str
    size_bytes: int
    last_used: float = 0.0
    pinned: bool = False
    busy: bool = False
    """Requests are under way."""
    moving: bool = False
    """Something is under way for it that will end by itself, such as a load; then it may have to leave."""
    in_line: bool = False
    """It waits for room itself, and keeps what it has meanwhile."""
    leaving: bool = False
    """What it holds comes back by itself."""
    idle_unload_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fits:
    """There is room."""


@dataclass(frozen=True, slots=True)
class Evict:
    """There is room once these have left, the one not used for longest first."""

    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """There is room once those that leave have left; or with `moves`, there may be once others are at rest."""

    moves: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is no room, and why, as a sentence."""

    reason: str


Verdict = Fits | Evict | Wait | Refuse


def make_room(
    model: str, needed_bytes: int, budget_bytes: int, residents: Sequence[Resident], *, evict: bool = True
) -> Verdict:
    """How `model` gets `needed_bytes` more. Without `evict` nobody leaves for it, and nobody is waited for.

    Those that have requests under way leave only where the others are not enough.
    """
    if needed_bytes > budget_bytes:
        return Refuse(f"It needs {text_of(needed_bytes)}, and the memory budget is {text_of(budget_bytes)}.")
    free = budget_bytes - sum(one.size_bytes for one in residents)
    if needed_bytes <= free:
        return Fits()
    if not evict:
        return Refuse(no_room(needed_bytes, budget_bytes, residents))
    free += sum(one.size_bytes for one in residents if one.leaving)
    if needed_bytes <= free:
        return Wait()
    others = [one for one in residents if one.model != model and not (one.leaving or one.pinned or one.in_line)]
    chosen = _least_recently_used([one for one in others if not one.moving], needed_bytes - free)
    if chosen is not None:
        return Evict(tuple(one.model for one in chosen))
    if needed_bytes <= free + sum(one.size_bytes for one in others):
        return Wait(moves=True)
    return Refuse(no_room(needed_bytes, budget_bytes, residents))


def idle_too_long(residents: Sequence[Resident], now: float) -> list[str]:
    """The models that have not been used for as long as they may."""
    return [one.model for one in residents if (at := _idle_at(one)) is not None and at <= now]


def next_idle(residents: Sequence[Resident], now: float) -> float | None:
    """When to look at them again: the earliest moment at which one may have been idle for too long.

    One that is busy is looked at again after as long as it may be idle.
    """
    due = [
        max(now, one.last_used) + one.idle_unload_s if one.busy else one.last_used + one.idle_unload_s
        for one in residents
        if one.idle_unload_s is not None and not _stays(one)
    ]
    return min(due, default=None)


def text_of(size_bytes: int) -> str:
    """In MiB, to one decimal below ten."""
    mib = size_bytes / (1 << 20)
    return f"{mib:.1f} MiB" if abs(mib) < 10 else f"{mib:.0f} MiB"


def no_room(needed_bytes: int, budget_bytes: int, residents: Sequence[Resident]) -> str:
    """What is needed and what there is, as a sentence."""
    pinned = sum(one.size_bytes for one in residents if one.pinned)
    used = sum(one.size_bytes for one in residents)
    return (
        f"It needs {text_of(needed_bytes)} more, and of the memory budget of {text_of(budget_bytes)} "
        f"{text_of(used)} are taken, {text_of(pinned)} of them by pinned models."
    )


def _idle_at(one: Resident) -> float | None:
    if one.idle_unload_s is None or one.busy or _stays(one):
        return None
    return one.last_used + one.idle_unload_s


def _stays(one: Resident) -> bool:
    return one.pinned or one.moving or one.in_line or one.leaving


def _least_recently_used(residents: Sequence[Resident], wanted_bytes: int) -> list[Resident] | None:
    """As few as need leave, from the one not used for longest; None where all of them are not enough."""
    chosen: list[Resident] = []
    freed = 0
    for one in sorted(residents, key=lambda one: (one.busy, one.last_used, one.model)):
        if freed >= wanted_bytes:
            break
        if one.size_bytes:
            chosen.append(one)
            freed += one.size_bytes
    if freed < wanted_bytes:
        return None
    for one in reversed(chosen[:]):  # small ones that were chosen before a large one may stay
        if freed - one.size_bytes >= wanted_bytes:
            chosen.remove(one)
            freed -= one.size_bytes
    return chosen
