"""Who answers a request: by weight, by key, by version; and leases over a swap."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import pytest

from core.errors import ModelNotFound, NotReady
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.target import Target


@dataclass
class Version:
    version: int
    model: str = "m"


def served(version: int) -> Served:
    return Served(cast(Target, Version(version)))


def catalogue(weights: dict[int, float], *, shadows: tuple[int, ...] = ()) -> Catalogue:
    made = Catalogue()
    made.expected = {}
    shares = [Share(served(version), weight) for version, weight in weights.items()]
    made.swap("m", [*shares, *(Share(served(version), 1.0, "shadow") for version in shadows)])
    return made


def pick(made: Catalogue, **how: Any) -> int:
    lease = made.lease("m", **how)
    lease.release()
    return lease.target.version


@pytest.mark.parametrize(
    "weights",
    [{1: 90, 2: 10}, {1: 0.9, 2: 0.1}, {1: 1, 2: 1, 3: 1}, {1: 5, 2: 3, 3: 2}, {1: 1e6, 2: 1}, {7: 2}],
)
def test_every_share_is_met_within_one_request_at_any_moment(weights: dict[int, float]) -> None:
    made = catalogue(weights)
    seen: Counter[int] = Counter()
    for count in range(1, 501):
        seen[pick(made)] += 1
        for version, weight in weights.items():
            assert abs(seen[version] - count * weight / sum(weights.values())) <= len(weights) - 1 + 1e-6


def test_a_canary_of_a_tenth_gets_ten_of_a_hundred() -> None:
    made = catalogue({1: 90, 2: 10})
    versions = [pick(made) for _ in range(100)]
    assert versions.count(2) == 10
    assert max(len(run) for run in "".join(map(str, versions)).split("2")) <= 10, "spread, not in a burst"


def test_shadows_answer_nobody() -> None:
    made = catalogue({1: 1}, shadows=(2,))
    assert {pick(made) for _ in range(20)} == {1}
    assert not made.splits("m")
    with pytest.raises(ModelNotFound, match="Version 2 of model 'm' is not in service; ask for 1, or for none"):
        made.lease("m", 2)


def test_a_version_can_be_asked_for() -> None:
    made = catalogue({1: 99, 2: 1})
    assert {pick(made, version=2, key=b"anyone") for _ in range(20)} == {2}
    with pytest.raises(ModelNotFound, match="ask for 1 or 2, or for none"):
        made.lease("m", 3)
    with pytest.raises(ModelNotFound, match="There is no model 'other'"):
        made.lease("other", None, b"anyone")


def test_what_should_answer_and_does_not_yet_is_told_from_what_should_not() -> None:
    made = catalogue({1: 1})
    made.expected = {"m": (1, 2), "soon": (3,)}
    for name, version in (("m", 2), ("soon", None), ("soon", 3)):
        with pytest.raises(NotReady, match="not ready yet") as caught:
            made.lease(name, version)
        assert caught.value.headers() == {"Retry-After": "1"}
    for name, version in (("m", 3), ("soon", 4), ("never", None), ("never", 1)):
        with pytest.raises(ModelNotFound):
            made.lease(name, version)


def test_before_it_is_known_what_should_answer_nothing_is_said_to_be_missing() -> None:
    with pytest.raises(NotReady, match="just started") as caught:
        Catalogue().lease("m")
    assert caught.value.headers() == {"Retry-After": "1"}


KEYS = [f"user-{i}".encode() for i in range(4000)]


def homes(weights: dict[int, float]) -> dict[bytes, int]:
    made = catalogue(weights)
    assert made.splits("m")
    return {key: pick(made, key=key) for key in KEYS}


def test_keys_are_spread_by_weight() -> None:
    counts = Counter(homes({1: 70, 2: 20, 3: 10}).values())
    expected = {1: 2800, 2: 800, 3: 400}
    chi_square = sum((counts[v] - n) ** 2 / n for v, n in expected.items())
    assert chi_square < 13.8, counts  # p = 0.001, two degrees of freedom; the keys are always the same


def test_a_key_keeps_its_version() -> None:
    made = catalogue({1: 60, 2: 40})
    first = {key: pick(made, key=key) for key in KEYS[:200]}
    for _ in range(7):
        pick(made)
    assert {key: pick(made, key=key) for key in KEYS[:200]} == first
    assert {key: home for key, home in homes({1: 60, 2: 40}).items() if key in first} == first, "another process"


def test_only_as_many_keys_move_as_must() -> None:
    before, after = homes({1: 90, 2: 10}), homes({1: 70, 2: 30})
    moves = Counter((before[key], after[key]) for key in KEYS if before[key] != after[key])
    assert set(moves) == {(1, 2)}, "nobody moves away from the version that grows"
    assert moves[1, 2] == pytest.approx(0.2 * len(KEYS), rel=0.1)
    gone = homes({1: 70, 3: 30})
    assert all(gone[key] == 1 for key in KEYS if after[key] == 1 and gone[key] != 3)


def test_two_models_put_the_same_key_in_different_places() -> None:
    one, other = catalogue({1: 1, 2: 1}), Catalogue()
    other.swap("m", [Share(Served(cast(Target, Version(v, "other")))) for v in (1, 2)])
    differ = sum(pick(one, key=key) != pick(other, key=key) for key in KEYS[:500])
    assert 150 < differ < 350


def test_leases_hold_what_a_swap_retires_and_a_return_is_in_service_again() -> None:
    async def test() -> None:
        made, old, new = Catalogue(), served(1), served(2)
        made.swap("m", [Share(old)])
        leases = [made.lease("m"), made.lease("m")]
        assert made.swap("m", [Share(new)]) == [old]
        assert old.retired
        assert not await old.drained(0.01)
        waits = [asyncio.create_task(old.drained(5)) for _ in range(2)]
        await asyncio.sleep(0)
        for lease in leases:
            lease.release()
        assert await asyncio.gather(*waits) == [True, True]
        made.swap("m", [Share(old)])
        assert not old.retired
        lease = made.lease("m")
        assert not await old.drained(0.01), "a drain before must not be taken for this one"
        lease.release()
        assert await old.drained(0.01)

    asyncio.run(test())


def test_an_empty_swap_takes_a_name_out() -> None:
    made = catalogue({1: 1, 2: 1}, shadows=(3,))
    assert len(made.swap("m", [])) == 3
    assert made.snapshot("m") == {}
    with pytest.raises(ModelNotFound):
        made.lease("m")
