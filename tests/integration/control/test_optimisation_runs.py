"""A search's row while it is under way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.control import optimisations, optimising
from core.control.optimisations import OptimisationRuns
from core.control.samples import SampleBook
from core.database.repositories.optimisations import Optimisations
from core.database.session import Database
from core.database.tables import Version
from core.optimiser.search import Progress
from core.settings import Settings
from tests.databases import fresh_database, with_database
from tests.integration.control.recommended import recommended


class _Counted:
    """How often the row was written, and how often it was only looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = self.looks = 0
        hold, is_wanted = Optimisations.hold, Optimisations.is_wanted

        async def counted_hold(*args: Any) -> bool:
            self.writes += 1
            return await hold(*args)

        async def counted_look(*args: Any) -> bool:
            self.looks += 1
            return await is_wanted(*args)

        monkeypatch.setattr(Optimisations, "hold", counted_hold)
        monkeypatch.setattr(Optimisations, "is_wanted", counted_look)

    async def looked(self, times: int) -> None:
        """Wait for so many more looks."""
        until = self.looks + times
        async with asyncio.timeout(10):
            while self.looks < until:
                await asyncio.sleep(0.005)


def test_samples_that_are_left_out_are_counted_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_bytes = 4 * 4
    monkeypatch.setattr(optimising, "MOST_BYTES", 2 * sample_bytes)

    async def work(database: Database) -> None:
        async with recommended(database, tmp_path) as house:
            settings = Settings(data_dir=tmp_path)
            book = SampleBook(database, house.store, settings)
            for number in range(6):
                np.save(file := tmp_path / f"{number}.npy", np.full((1, 4), number, np.float32))
                await book.add_live(house.model, file.read_bytes(), 10)
            async with database.session() as session:
                version = await session.get(Version, house.version.id)
            assert version is not None
            inside = optimising.Inside(database, house.store, settings, version)
            inputs = await optimising.inputs_of(inside, tmp_path / "feeds", 60.0)
        assert inputs.to_json(1)["bounded"] == [
            "Of 3 samples that calibrate, 2 are used: more would take over 0 MiB.",
            "Of 3 samples that judge, 2 are used: more would take over 0 MiB.",
            "The reference answered 1 of the 2 that judge within its time and room.",
        ]
        assert len(inputs.calibrating_ids) == len(inputs.calibrating) == len(inputs.labels) == 2

    with fresh_database("sqlite", tmp_path) as url:
        with_database(url, work, timeout_s=60)


def test_progress_is_written_only_where_there_is_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = _Counted(monkeypatch)
    monkeypatch.setattr(optimisations, "HOLD_EVERY_S", 0.01)

    async def work(database: Database) -> None:
        runs: list[Any] = []

        async def never_ends(run: Any) -> None:
            runs.append(run)
            await asyncio.Event().wait()

        monkeypatch.setattr(optimisations._Run, "_work", never_ends)
        async with recommended(database, tmp_path) as house:
            async with database.transaction() as session:
                search = (await Optimisations(session).add(house.version.id, {}, "ada")).id
            searching = asyncio.create_task(
                OptimisationRuns(database, house.store, Settings(data_dir=tmp_path)).run_one(search)
            )
            await counted.looked(10)
            assert counted.writes == 1
            runs[0]._phase = Progress("measuring")
            await counted.looked(10)
            assert counted.writes == 2
            async with database.transaction() as session:
                row = await Optimisations(session).get(search)
                assert row is not None
                assert row.progress["phase"] == "measuring"
                await Optimisations(session).request_cancel(row)
            async with asyncio.timeout(10):
                assert await searching == "cancelled"
            assert counted.writes == 2, "a wish to end is seen by looking"

    with fresh_database("sqlite", tmp_path) as url:
        with_database(url, work)
