"""A recommended form that fails in service, where the uploaded one does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from core.control import form_health
from core.control.actor import SYSTEM
from core.control.artifact_choice import why_stale
from core.control.following import follow
from core.database.repositories.audit import Audit
from core.database.repositories.optimisations import Optimisations
from core.database.session import Database
from core.errors import PlatformError
from tests.acceptance import onnx_models
from tests.databases import fresh_database, with_database
from tests.integration.control.recommended import DERIVED, NAME, SIGNATURE, UPLOADED, Recommended, recommended


def _run(folder: Path, work: Callable[[Recommended], Awaitable[None]]) -> None:
    async def inside(database: Database) -> None:
        async with recommended(database, folder) as house:
            await work(house)

    with fresh_database("sqlite", folder) as url:
        with_database(url, inside, timeout_s=60)


async def _ask(house: Recommended, value: float, times: int) -> int:
    """So many requests, one after the other; answers how many failed."""
    failed = 0
    for _ in range(times):
        try:
            await house.answer(value)
        except PlatformError:
            failed += 1
    return failed


async def _fault(house: Recommended, search: int) -> str | None:
    async with house.database.session() as session:
        return why_stale(await Optimisations(session).get(search))


def test_a_form_whose_requests_fail_goes_back_to_the_upload(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        search = await house.search(await house.add_derived("touchy", 3, 0, onnx_models.touchy(DERIVED)))
        generation = await house.deploy()
        await house.rests(generation)
        assert await _ask(house, 1.0, 17) == 0
        assert await _ask(house, 7.0, 1) == 1
        house.reconciler.wake()
        assert await house.factor() == DERIVED, "one failure is not held against it"
        assert await _ask(house, 7.0, 4) == 4
        house.reconciler.wake()
        seen = await house.rests(generation + 1)
        fault = "5 of 23 requests failed in service"
        assert seen.reason == f"Version 1 runs as uploaded again, not as search {search} recommends: {fault}."
        assert await _ask(house, 7.0, 1) == 0
        assert await house.factor() == UPLOADED
        assert await _fault(house, search) == fault
        async with house.database.session() as session:
            entries, _ = await Audit(session).page(limit=1)
        found = (entries[0].actor, entries[0].action, entries[0].subject)
        assert found == ("system", "deployment.fall_back", NAME)
        again = await house.rests(await house.deploy())
        assert again.reason == f"Version 1: It runs as uploaded, not as search {search} recommends: {fault}."
        async with house.database.transaction() as session:
            await follow(session, NAME, 1, search, SYSTEM)
        assert await _fault(house, search) is None, "whoever applies it by hand has had a look"

    _run(tmp_path, work)


def test_what_fails_as_uploaded_too_is_not_the_form_s_fault(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        file = house.store.path(house.version.sha256) / "model.onnx"
        file.chmod(0o600)
        file.write_bytes(onnx_models.touchy(UPLOADED))
        search = await house.search(
            await house.add_derived("touchy", 3, 0, onnx_models.touchy(DERIVED)), follow=False
        )
        await house.rests(await house.deploy())
        assert await _ask(house, 7.0, 25) == 25
        await house.reconciler._forms.look()
        async with house.database.transaction() as session:
            _, generation = await follow(session, NAME, 1, search, SYSTEM)
        assert generation is not None
        house.reconciler.wake()
        await house.rests(generation)
        assert await house.factor() == DERIVED
        assert await _ask(house, 7.0, 25) == 25
        await house.reconciler._forms.look()
        assert await _fault(house, search) is None
        assert await house.factor() == DERIVED

    _run(tmp_path, work)


def test_a_form_whose_process_dies_goes_back_to_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_health, "MOST_CRASHES", 2)

    async def work(house: Recommended) -> None:
        fields = {"signature": SIGNATURE, "scale": DERIVED, "latency_ms": 0, "fail": "crash", "fail_on": 7.0}
        crashing = await house.add_derived("crashing", 3, 0, json.dumps(fields).encode())
        search = await house.search(crashing, use={"engine": "fake"})
        generation = await house.deploy(isolation="process")
        await house.rests(generation)
        assert await house.factor() == DERIVED
        assert await _ask(house, 7.0, 1) == 1, "it dies twice of one request"
        seen = await house.rests(generation + 1)
        assert "its process ended 2 times in 10 minutes of service" in seen.reason
        assert await _ask(house, 7.0, 1) == 0
        assert await house.factor() == UPLOADED
        assert "its process ended 2 times" in str(await _fault(house, search))

    _run(tmp_path, work)


def test_a_process_that_cannot_start_again_goes_back_to_the_upload(tmp_path: Path) -> None:
    async def work(house: Recommended) -> None:
        search = await house.search()
        generation = await house.deploy(isolation="process")
        await house.rests(generation)
        runner = house.catalogue.serving(NAME)[0].target.runner  # type: ignore[attr-defined]
        await house.store.remove(house.derived.sha256)
        runner.process._process.kill()
        async with asyncio.timeout(30):
            seen = await house.rests(generation + 1)
        assert "its process does not start again" in seen.reason
        assert await house.factor() == UPLOADED
        assert await _fault(house, search) == "its process does not start again"

    _run(tmp_path, work)
