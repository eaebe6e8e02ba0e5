"""Changes are heard at once, and after a connection was lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core.control.changes import Changes
from core.database.listener import Listener, backoff_s
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from tests.cut_off import CutOff
from tests.databases import fresh_database


async def bump(database: Database, *, fail: bool = False) -> None:
    async with database.transaction() as session:
        await Revisions(session).bump("tokens")
        if fail:
            raise RuntimeError


def test_a_change_is_told_when_it_is_committed_and_only_then(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        told = asyncio.Event()
        listener, database = Listener(url, told.set), Database(url)
        task = asyncio.create_task(listener.run())
        async with asyncio.timeout(20):
            await listener.listening.wait()
            told.clear()
            with pytest.raises(RuntimeError):
                await bump(database, fail=True)
            async with database.transaction() as session:
                await Revisions(session).bump("tokens")
                await asyncio.sleep(0.2)
                assert not told.is_set()
            await told.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.close()

    with fresh_database("postgresql", tmp_path) as url:
        asyncio.run(scenario(url))


@pytest.mark.parametrize("close", [False, True], ids=["silent", "refused"])
def test_what_was_missed_is_seen_once_there_is_a_connection_again(
    tmp_path: Path, close: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.database.listener.PING_EVERY_S", 0.1)

    async def scenario(url: str, way: CutOff) -> None:
        far = url.replace(f":{urlsplit(url).port}", f":{way.port}")
        near_database, far_database = Database(url), Database(far, timeout_s=1)
        seen = asyncio.Queue[int]()
        # Only the listener wakes it: the next poll is an hour away.
        changes = Changes(far_database, {"tokens": lambda: seen.put_nowait(1)}, poll_s=3600)
        listener = Listener(far, changes.wake, timeout_s=0.5)
        tasks = [asyncio.create_task(listener.run()), asyncio.create_task(changes.run())]
        async with asyncio.timeout(60):
            await seen.get()
            await listener.listening.wait()
            await bump(near_database)
            await seen.get()
            way.cut(close=close)
            await bump(near_database)
            while listener.listening.is_set():
                await asyncio.sleep(0.02)
            assert seen.empty()
            way.heal()
            await seen.get()
            await listener.listening.wait()
            await bump(near_database)
            await seen.get()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await near_database.close()
        await far_database.close()

    with fresh_database("postgresql", tmp_path) as url, CutOff(urlsplit(url).port or 5432) as way:
        asyncio.run(scenario(url, way))


def test_it_waits_longer_after_each_failure_and_never_too_long() -> None:
    assert [backoff_s(failures) for failures in (0, 1, 2, 3, 1000)] == [0.1, 0.1, 0.2, 0.4, 5.0]
