"""A change is answered once all workers of the machine have taken it over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.control import publisher as publisher_module
from core.control.follower import ControlLost, Follower
from core.control.publisher import Publisher
from core.serving.catalogue import Catalogue
from core.tasks.base import MediaLimits


class Worker:
    """A follower whose look at the database ends when the test says so."""

    def __init__(self, path: Path, name: str) -> None:
        self.follower = Follower(path, name, Catalogue(), ThreadPoolExecutor(1), MediaLimits(), drain_s=1)
        self.follower.on_look = self._look
        self.looks = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.running = asyncio.create_task(self._run())

    async def _look(self) -> None:
        self.looks += 1
        await self.may_end.wait()

    async def _run(self) -> None:
        try:
            await self.follower.run()
        except (ControlLost, OSError):
            return

    async def leave(self) -> None:
        self.running.cancel()
        await self.follower.close()


@asynccontextmanager
async def workers(folder: Path, count: int) -> AsyncIterator[tuple[Publisher, list[Worker]]]:
    publisher = Publisher(folder / "c.sock")
    await publisher.start()
    made = [Worker(publisher.path, f"w{number}") for number in range(count)]
    try:
        for worker in made:
            await asyncio.wait_for(worker.follower.synced.wait(), 30)
        yield publisher, made
    finally:
        for worker in made:
            await worker.leave()
        await publisher.close()


async def _until_looked(worker: Worker, times: int) -> None:
    async with asyncio.timeout(30):
        while worker.looks < times:
            await asyncio.sleep(0.01)


def test_whoever_changes_something_waits_until_all_others_have_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with workers(tmp_path, 3) as (_, (here, there, slow)):
            before = here.looks
            slow.may_end.clear()
            told = asyncio.create_task(here.follower.tell_others())
            await _until_looked(slow, 2)
            await _until_looked(there, 2)
            await asyncio.sleep(0.05)
            assert not told.done()
            slow.may_end.set()
            await asyncio.wait_for(told, 30)
            assert (there.looks, slow.looks, here.looks) == (2, 2, before)

    asyncio.run(work())


def test_two_that_change_something_at_once_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with workers(tmp_path, 2) as (_, both):
            async with asyncio.timeout(30):
                await asyncio.gather(*(one.follower.tell_others() for one in both))
            assert [one.looks for one in both] == [2, 2]

    asyncio.run(work())


def test_a_worker_that_dies_is_not_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with workers(tmp_path, 2) as (_, (here, dying)):
            dying.may_end.clear()
            told = asyncio.create_task(here.follower.tell_others())
            await _until_looked(dying, 2)
            await dying.leave()
            await asyncio.wait_for(told, 30)

    asyncio.run(work())


def test_a_worker_that_hangs_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "TAKE_TIMEOUT_S", 0.05)

    async def work() -> None:
        async with workers(tmp_path, 2) as (_, (here, hanging)):
            hanging.may_end.clear()
            await asyncio.wait_for(here.follower.tell_others(), 30)
            assert not hanging.may_end.is_set()

    asyncio.run(work())


def test_a_worker_that_comes_looks_once_more_and_is_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with workers(tmp_path, 1) as (publisher, (here,)):
            new = Worker(publisher.path, "new")
            new.may_end.clear()
            await _until_looked(new, 1)  # what it has read at its start may be old
            told = asyncio.create_task(here.follower.tell_others())
            await asyncio.sleep(0.05)
            assert not told.done()
            new.may_end.set()
            await asyncio.wait_for(told, 30)
            await new.leave()

    asyncio.run(work())
