"""Converted forms: bounded after searches, made anew, removed, and kept while something needs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from core.control.actor import SYSTEM
from core.control.derived_forms import KEEP, DerivedForms
from core.control.samples import SampleBook
from core.database.repositories import DerivedArtifacts, Samples
from core.database.repositories.audit import Audit
from core.database.session import Database
from core.errors import Conflict, ConversionFailed, ModelNotFound, NotFound
from core.optimiser.derived import Derived
from core.settings import Settings
from tests.databases import fresh_database, with_database
from tests.integration.control.recommended import DERIVED, NAME, UPLOADED, Recommended, recommended

Work = Callable[[Recommended, DerivedForms], Awaitable[None]]


def _run(folder: Path, work: Work) -> None:
    async def inside(database: Database) -> None:
        async with recommended(database, folder) as house:
            settings = Settings(data_dir=folder)
            await work(house, DerivedForms(database, house.store, settings))

    with fresh_database("sqlite", folder) as url:
        with_database(url, inside)


def test_what_is_neither_new_nor_in_use_goes_with_its_files(tmp_path: Path) -> None:
    async def work(house: Recommended, forms: DerivedForms) -> None:
        served = house.derived
        await house.search(served)
        await house.rests(await house.deploy())
        unused = await house.add_derived("fp16", 3, 4.0)
        recommended_now = await house.add_derived("int8-static", 4, 5.0)
        await house.search(recommended_now)
        newest = [await house.add_derived("fp16", number, 6.0) for number in range(5, 5 + KEEP)]
        assert await forms.trim(house.version.id) == 1
        kept = {row.id for row in await forms.list(NAME, 1)}
        assert kept == {served.id, recommended_now.id, *(row.id for row in newest)}
        assert not house.store.exists(unused.sha256)
        assert house.store.exists(served.sha256)
        assert await forms.trim(house.version.id) == 0

    _run(tmp_path, work)


def test_shared_content_stays_for_who_still_needs_it(tmp_path: Path) -> None:
    async def work(house: Recommended, forms: DerivedForms) -> None:
        async with house.database.transaction() as session:
            twin, _ = await DerivedArtifacts(session).put(
                house.version.id,
                "twin",
                conversion="fp16",
                sha256=house.derived.sha256,
                model="model.onnx",
                format="onnx",
                size_bytes=1,
                recipe={},
                made_by="test",
            )
        await forms.remove(NAME, 1, twin.id, SYSTEM)
        assert house.store.exists(house.derived.sha256)
        await forms.remove(NAME, 1, house.derived.id, SYSTEM)
        assert not house.store.exists(house.derived.sha256)

    _run(tmp_path, work)


def test_one_that_serves_can_neither_be_removed_nor_made_anew(tmp_path: Path) -> None:
    async def work(house: Recommended, forms: DerivedForms) -> None:
        await house.search()
        await house.rests(await house.deploy())
        with pytest.raises(Conflict, match="cannot be removed"):
            await forms.remove(NAME, 1, house.derived.id, SYSTEM)
        with pytest.raises(Conflict, match="cannot be made anew"):
            await forms.rebuild(NAME, 1, house.derived.id, SYSTEM)
        assert await house.factor() == DERIVED
        await house.rests(await house.deploy(engine="onnx"))
        await forms.remove(NAME, 1, house.derived.id, SYSTEM)
        with pytest.raises(NotFound, match="no derived artifact"):
            await forms.remove(NAME, 1, house.derived.id, SYSTEM)
        with pytest.raises(ModelNotFound):
            await forms.list(NAME, 9)

    _run(tmp_path, work)


def test_what_was_made_anew_is_not_taken_for_what_was_judged(tmp_path: Path) -> None:
    async def work(house: Recommended, forms: DerivedForms) -> None:
        made = await Derived(house.database, house.store).get_or_make(house.version, "simplified", by="ada")
        await house.search(made, use={"artifact_sha256": "f" * 64})
        again = await forms.rebuild(NAME, 1, made.id, SYSTEM)
        assert (again.id, again.made_by) == (made.id, SYSTEM.name)
        assert again.made_at > made.made_at
        seen = await house.rests(await house.deploy())
        assert "its converted form was made anew, and has not been judged since." in seen.reason
        assert await house.factor() == UPLOADED
        async with house.database.session() as session:
            entries, _ = await Audit(session).page(10, None)
        assert "derived.rebuild" in {entry.action for entry in entries}
        assert not list(tmp_path.glob("optimising-*"))

    _run(tmp_path, work)


def test_a_recipe_whose_samples_are_gone_says_so(tmp_path: Path) -> None:
    async def work(house: Recommended, forms: DerivedForms) -> None:
        settings = Settings(data_dir=tmp_path)
        book = SampleBook(house.database, house.store, settings)
        for number in range(3):
            array = np.full((1, 4), number, np.float32)
            file = tmp_path / f"{number}.npy"
            np.save(file, array)
            await book.add_live(house.model, file.read_bytes(), 10)
        async with house.database.session() as session:
            ids = [row.id for row in await Samples(session).list(house.model.id)]
        derived = Derived(house.database, house.store)
        made = await derived.get_or_make(house.version, "simplified", calibration={"samples": ids})
        assert (await forms.rebuild(NAME, 1, made.id, SYSTEM)).recipe["calibration"] == {"samples": ids}
        async with house.database.transaction() as session:
            await Samples(session).remove(house.model.id, ids[:1])
        with pytest.raises(ConversionFailed, match="1 of the 3 samples that calibrated it are gone; search again"):
            await forms.rebuild(NAME, 1, made.id, SYSTEM)

    _run(tmp_path, work)
