from __future__ import annotations

from typing import Any

import pytest

from core.control.memory_policy import (
    Evict,
    Fits,
    Refuse,
    Resident,
    Verdict,
    Wait,
    idle_too_long,
    make_room,
    next_idle,
)


def one(model: str, size_bytes: int, last_used: float = 0.0, **how: Any) -> Resident:
    return Resident(model, size_bytes, last_used, **how)


OLD, MID, NEW = one("old", 30, 1.0), one("mid", 30, 2.0), one("new", 30, 3.0)

CASES: list[tuple[str, int, list[Resident], Verdict]] = [
    ("an empty node", 100, [], Fits()),
    ("to the last byte", 40, [OLD, MID], Fits()),
    ("least recently used", 30, [NEW, OLD, MID], Evict(("old",))),
    ("as many as it takes", 50, [NEW, OLD, MID], Evict(("old", "mid"))),
    ("everything", 100, [NEW, OLD, MID], Evict(("old", "mid", "new"))),
    ("an old small one may stay", 90, [one("small", 5, 0.0), one("big", 90, 1.0)], Evict(("big",))),
    ("what holds nothing stays", 20, [one("none", 0, 0.0), one("big", 90, 1.0)], Evict(("big",))),
    ("pinned ones stay", 30, [one("pinned", 30, 0.0, pinned=True), MID, NEW], Evict(("mid",))),
    ("busy ones leave last", 30, [one("busy", 30, 0.0, busy=True), MID, NEW], Evict(("mid",))),
    ("but they do", 70, [one("busy", 90, 0.0, busy=True)], Evict(("busy",))),
    ("what leaves already is enough", 30, [one("", 30, leaving=True), MID, NEW], Wait()),
    ("or counts", 60, [one("", 30, leaving=True), MID, NEW], Evict(("mid",))),
    ("a load may end", 90, [one("loading", 90, moving=True)], Wait(moves=True)),
    ("others leave before that", 30, [one("loading", 60, moving=True), MID], Evict(("mid",))),
    ("not its own older version", 50, [one("m", 60)], Refuse("")),
    ("not what waits itself", 50, [one("waiting", 60, in_line=True)], Refuse("")),
    ("all pinned", 50, [one("pinned", 60, pinned=True)], Refuse("")),
    ("larger than all", 101, [], Refuse("")),
    ("beyond the budget already", 0, [one("grown", 120, 1.0), NEW], Evict(("grown",))),
]


@pytest.mark.parametrize(
    ("needed", "residents", "verdict"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_room_is_made(needed: int, residents: list[Resident], verdict: Verdict) -> None:
    found = make_room("m", needed, 100, residents)
    if isinstance(verdict, Refuse):
        assert isinstance(found, Refuse)
    else:
        assert found == verdict


def test_nobody_leaves_for_what_is_only_started() -> None:
    assert make_room("m", 10, 100, [OLD, MID, NEW], evict=False) == Fits()
    assert isinstance(make_room("m", 11, 100, [OLD, MID, NEW], evict=False), Refuse)


def test_a_refusal_says_why() -> None:
    mib = 1 << 20
    found = make_room("m", 300 * mib, 200 * mib, [])
    assert found == Refuse("It needs 300 MiB, and the memory budget is 200 MiB.")
    found = make_room("m", 150 * mib, 200 * mib, [one("p", 60 * mib, pinned=True), one("q", 8 * mib)])
    assert found == Refuse(
        "It needs 150 MiB more, and of the memory budget of 200 MiB 68 MiB are taken, "
        "60 MiB of them by pinned models."
    )


@pytest.mark.parametrize(
    ("resident", "idle", "due"),
    [
        (one("m", 1, 10.0, idle_unload_s=5), True, 15.0),
        (one("m", 1, 16.0, idle_unload_s=5), False, 21.0),
        (one("m", 1, 10.0), False, None),
        (one("m", 1, 10.0, idle_unload_s=5, busy=True), False, 25.0),
        (one("m", 1, 10.0, idle_unload_s=5, pinned=True), False, None),
        (one("m", 1, 10.0, idle_unload_s=5, moving=True), False, None),
        (one("m", 1, 10.0, idle_unload_s=5, leaving=True), False, None),
    ],
)
def test_idle_for_too_long(resident: Resident, idle: bool, due: float | None) -> None:
    assert idle_too_long([resident], 20.0) == (["m"] if idle else [])
    assert next_idle([resident], 20.0) == due
