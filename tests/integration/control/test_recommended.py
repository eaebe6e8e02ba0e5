"""`engine: auto` follows a recommendation while it can, and says why where it cannot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from core.database.session import Database
from core.optimiser.machine import fingerprint
from tests.databases import fresh_database, with_database
from tests.integration.control.recommended import DERIVED, UPLOADED, Recommended, recommended


def _run(folder: Path, work: Callable[[Recommended], Awaitable[None]]) -> None:
    async def inside(database: Database) -> None:
        async with recommended(database, folder) as house:
            await work(house)

    with fresh_database("sqlite", folder) as url:
        with_database(url, inside)


def test_what_is_recommended_serves(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        await house.search()
        seen = await house.rests(await house.deploy())
        assert await house.factor() == DERIVED
        assert seen.reason == ""

    _run(tmp_path, work)


async def _remove_files(house: Recommended) -> None:
    await house.store.remove(house.derived.sha256)


async def _spoil(house: Recommended) -> None:
    file = house.store.path(house.derived.sha256) / "model.onnx"
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:60])


async def _remove_the_model_alone(house: Recommended) -> None:
    folder = house.store.path(house.derived.sha256)
    folder.chmod(0o700)
    (folder / "model.onnx").unlink()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_remove_files, "its converted form is gone."),
        (_remove_the_model_alone, "its converted form is gone."),
        (_spoil, "that does not load. ONNX Runtime cannot load"),
    ],
)
def test_a_derived_file_that_is_gone_or_spoilt_leaves_the_upload_serving(
    tmp_path: Path, harm: Callable[[Recommended], Awaitable[None]], says: str
) -> None:
    async def work(house: Recommended) -> None:
        search = await house.search()
        await harm(house)
        seen = await house.rests(await house.deploy())
        assert await house.factor() == UPLOADED
        begin = f"Version 1: It runs as uploaded, not as search {search} recommends: "
        assert seen.reason.startswith(begin + says), seen.reason
        assert "/" not in seen.reason

    _run(tmp_path, work)


def test_a_changed_machine_and_an_engine_that_is_away_are_told(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        await house.search(machine={**fingerprint(), "cores": 999})
        stale = await house.rests(await house.deploy())
        assert "the number of cores changed since it was measured." in stale.reason
        assert await house.factor() == UPLOADED
        await house.search(use={"engine": "tensorrt", "device": "cuda:0"})
        away = await house.rests(await house.deploy())
        assert "that does not load. " in away.reason
        assert await house.factor() == UPLOADED

    _run(tmp_path, work)
