"""Derived artifacts: made once, found again, rebuilt, and gone with their version."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from core.control.samples import SampleBook
from core.control.uploads import Uploads
from core.database.repositories import DerivedArtifacts, Models, Samples, Versions
from core.database.session import Database
from core.database.tables import DerivedArtifact, Model, Version
from core.errors import ConversionFailed, NotFound, TooLarge
from core.optimiser.derived import Derived
from core.optimiser.feeds import write_feeds
from core.settings import SamplesSettings, Settings
from core.store.artifacts import ArtifactStore
from core.store.importer import Importer
from core.validation.samples import make_picture
from tests.databases import fresh_database, with_database
from tests.unit.optimiser import models

SHA = "c" * 64


class Place:
    """A model with one version in a store."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.store = ArtifactStore(folder / "artifacts", max_bytes=1 << 30, min_free_bytes=0)
        self.derived = Derived(database, self.store)
        self.uploads = Uploads(database, self.store, Importer(self.store, Settings().store))
        self.model: Model
        self.version: Version

    async def fill(self) -> None:
        staged = self.store.stage()
        models.pictures(staged)
        await self.store.publish(staged, SHA)
        async with self.database.transaction() as session:
            self.model = await Models(session).add("cat", "image-classification")
            self.version = await Versions(session).add_next(
                self.model.id, format="onnx", size_bytes=1, sha256=SHA, manifest={"model": "model.onnx"}
            )

    async def make(self, conversion: str = "simplified", **options: Any) -> DerivedArtifact:
        return await self.derived.get_or_make(self.version, conversion, options=options, by="ada")

    def addresses(self) -> set[str]:
        return set(self.store.addresses())


Work = Callable[[Place], Awaitable[None]]


def in_place(url: str, folder: Path, work: Work) -> None:
    async def run(database: Database) -> None:
        place = Place(database, folder)
        await place.fill()
        await work(place)

    with_database(url, run)


def test_it_is_made_once_and_says_how(database_url: str, tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        made = await place.make()
        assert place.derived.path(made).is_file()
        assert (made.conversion, made.format, made.made_by) == ("simplified", "onnx", "ada")
        assert made.recipe["notes"]["libraries"]["onnxruntime"]
        assert made.recipe["source"] == SHA
        assert (await place.make()).id == made.id
        assert (await place.make("fp16")).id != made.id
        assert [row.conversion for row in await place.derived.list(place.version.id)] == ["simplified", "fp16"]
        async with place.database.session() as session:
            model = await Models(session).by_name("cat")
            assert model is not None
            assert model.next_version == 2  # no version came of it
        assert list((place.folder / "artifacts/incoming").iterdir()) == []

    in_place(database_url, tmp_path, work)


def test_calibration_is_part_of_the_recipe_and_rebuilding_keeps_it(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        feeds = write_feeds(models.feeds(4, 3, 16, 16), tmp_path / "feeds")
        how = {"samples": [1, 2, 3, 4]}
        made = await place.derived.get_or_make(place.version, "int8-static", feeds, calibration=how)
        assert made.recipe["calibration"] == how
        other = await place.derived.get_or_make(place.version, "int8-static", feeds, calibration={"samples": [1]})
        assert other.id != made.id
        again = await place.derived.rebuild(made.id, feeds, by="eve")
        assert (again.id, again.key, again.sha256, again.made_by) == (made.id, made.key, made.sha256, "eve")
        assert again.made_at > made.made_at
        assert place.derived.path(again).is_file()
        with pytest.raises(NotFound):
            await place.derived.rebuild(other.id + 1)

    with fresh_database("sqlite", tmp_path) as url:
        in_place(url, tmp_path, work)


def test_files_that_are_gone_are_made_again(database_url: str, tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        made = await place.make()
        await place.store.remove(made.sha256)
        again = await place.make()
        assert again.sha256 == made.sha256
        assert place.derived.path(again).is_file()

    in_place(database_url, tmp_path, work)


def test_a_failure_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        with pytest.raises(ConversionFailed):
            await place.make("int8-static")
        assert place.addresses() == {SHA}
        assert list((place.folder / "artifacts/incoming").iterdir()) == []
        assert await place.derived.list(place.version.id) == []

    in_place(database_url, tmp_path, work)


def test_it_goes_with_its_model_and_not_before(database_url: str, tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        made = await place.make()
        await place.uploads.forget([made.sha256])  # it is in use: nothing happens
        assert place.derived.path(made).is_file()
        async with place.database.transaction() as session:
            model = await Models(session).by_name("cat")
            assert model is not None
            shas = [row.sha256 for row in await DerivedArtifacts(session).of_model(model.id)]
            await Models(session).delete(model)
        assert shas == [made.sha256]
        await place.uploads.forget([*shas, SHA])
        assert place.addresses() == set()
        async with place.database.session() as session:
            assert await DerivedArtifacts(session).get(made.id) is None

    in_place(database_url, tmp_path, work)


def test_removing_one(database_url: str, tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        made = await place.make()
        await place.derived.remove(made.id)
        assert place.addresses() == {SHA}
        with pytest.raises(NotFound):
            await place.derived.remove(made.id)

    in_place(database_url, tmp_path, work)


def test_live_samples_are_bounded_and_replaced_by_chance(database_url: str, tmp_path: Path) -> None:
    caps = SamplesSettings(max_count=6)

    async def work(place: Place) -> None:
        book = SampleBook(place.database, place.store, Settings(data_dir=tmp_path, samples=caps))
        pictures = [make_picture() + bytes([number]) for number in range(8)]
        for data in pictures:
            await book.add_live(place.model, data, 5)
        async with place.database.session() as session:
            rows = await Samples(session).list(place.model.id)
        assert len(rows) == 5
        assert {row.kind for row in rows} == {"live"}
        files = {path.name for path in (tmp_path / "samples").glob("*/*")}
        assert files == {row.sha256 for row in rows}
        await asyncio.gather(*(book.add_live(place.model, data, 5) for data in pictures))
        await book.add_live(place.model, make_picture() + b"!", 100)
        with pytest.raises(TooLarge, match=r"samples\.max_count"):
            await book.add_live(place.model, make_picture() + b"!!", 100)
        async with place.database.session() as session:
            assert (await Samples(session).totals(place.model.id))[0] <= 6
        files = {path.name for path in (tmp_path / "samples").glob("*/*")}
        async with place.database.session() as session:
            assert files == {row.sha256 for row in await Samples(session).list(place.model.id)}

    in_place(database_url, tmp_path, work)


class SlowStore(ArtifactStore):
    """Is let go on once it has published."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, max_bytes=1 << 30, min_free_bytes=0)
        self.published, self.go_on = threading.Event(), threading.Event()

    def publish_staged(self, staged: Path, sha256: str) -> Path:
        target = super().publish_staged(staged, sha256)
        self.published.set()
        assert self.go_on.wait(30)
        return target


def test_one_that_is_given_up_as_it_is_published_leaves_no_files(database_url: str, tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        store = SlowStore(place.folder / "artifacts")
        making = asyncio.create_task(Derived(place.database, store).get_or_make(place.version, "simplified"))
        while not await asyncio.to_thread(store.published.wait, 1):
            assert not making.done()
        making.cancel()
        await asyncio.sleep(0)
        store.go_on.set()
        await asyncio.wait([making])
        await asyncio.get_running_loop().shutdown_default_executor()  # what was begun in a thread has ended
        assert making.cancelled()
        assert place.addresses() == {SHA}

    in_place(database_url, tmp_path, work)
