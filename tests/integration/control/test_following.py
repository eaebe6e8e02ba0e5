"""Recommendations that are applied by hand, or not, and undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from core.control.actor import SYSTEM
from core.control.derived_forms import in_use
from core.control.following import apply_recommendation, follow, unfollow
from core.database.repositories.optimisations import Optimisations
from core.database.session import Database
from core.errors import Conflict, NotFound
from core.optimiser.machine import fingerprint
from tests.databases import fresh_database, with_database
from tests.integration.control.recommended import DERIVED, NAME, UPLOADED, Recommended, recommended


def _run(folder: Path, work: Callable[[Recommended], Awaitable[None]]) -> None:
    async def inside(database: Database) -> None:
        async with recommended(database, folder) as house:
            await work(house)

    with fresh_database("sqlite", folder) as url:
        with_database(url, inside)


async def _follow(house: Recommended, search: int | None = None) -> tuple[int, int | None]:
    async with house.database.transaction() as session:
        found = await follow(session, NAME, 1, search, SYSTEM)
    house.reconciler.wake()
    return found


async def _unfollow(house: Recommended) -> int | None:
    async with house.database.transaction() as session:
        generation = await unfollow(session, NAME, 1, SYSTEM)
    house.reconciler.wake()
    return generation


def test_one_that_only_recommends_is_followed_by_nobody_until_it_is_applied(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        search = await house.search(wanted={"apply": False}, follow=False)
        async with house.database.transaction() as session:
            assert not await apply_recommendation(session, search)
            assert await in_use(session, house.version) == {house.derived.id}, "it may be applied later"
        first = await house.deploy()
        await house.rests(first)
        assert await house.factor() == UPLOADED
        assert await _follow(house) == (search, first + 1)
        await house.rests(first + 1)
        assert await house.factor() == DERIVED
        assert await _follow(house) == (search, None), "it is followed already"
        assert await _unfollow(house) == first + 2
        await house.rests(first + 2)
        assert await house.factor() == UPLOADED
        again = await house.deploy()
        await house.rests(again)
        assert await house.factor() == UPLOADED, "an undo lasts"
        assert await _unfollow(house) is None

    _run(tmp_path, work)


def test_one_that_only_recommends_leaves_the_one_before_in_force(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        before = await house.search()
        newer = await house.search(wanted={"apply": False}, follow=False)
        await house.rests(await house.deploy())
        assert (await house.spec())["optimised"] == {"1": before}
        await _follow(house)
        assert (await house.spec())["optimised"] == {"1": newer}
        assert (await _follow(house, before))[0] == before
        async with house.database.session() as session:
            row = await Optimisations(session).recommended(house.version.id)
        assert row is not None
        assert row.id == before, "an older one that was chosen by hand stays chosen"
        latest = await house.search()
        async with house.database.transaction() as session:
            assert await apply_recommendation(session, latest)

    _run(tmp_path, work)


def test_a_search_that_asks_not_to_be_applied_is_written_down_so(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        async with house.database.transaction() as session:
            row = await Optimisations(session).add(house.version.id, {"apply": False}, "ada")
            assert not row.follow
            await Optimisations(session).request_cancel(row)
            assert (await Optimisations(session).add(house.version.id, {}, "ada")).follow

    _run(tmp_path, work)


def test_what_cannot_be_applied(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        with pytest.raises(NotFound, match="Version 1 has no recommendation"):
            await _follow(house)
        with pytest.raises(NotFound, match="Version 1 has no search 99"):
            await _follow(house, 99)
        stale = await house.search(machine={**fingerprint(), "cores": 999})
        with pytest.raises(Conflict, match="stale: the number of cores changed"):
            await _follow(house, stale)
        failed = await house.search(status="failed", recommendation=None)
        with pytest.raises(NotFound, match="has no recommendation"):
            await _follow(house, failed)
        search = await house.search()
        await house.rests(await house.deploy(engine="onnx"))
        assert await _follow(house) == (search, None), "the deployment names its engine"

    _run(tmp_path, work)
