from __future__ import annotations

import asyncio

import pytest

from core.database.repositories.defaults import DefaultTargets
from core.database.repositories.models import Models
from core.database.repositories.pipelines import Pipelines
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from core.errors import Conflict
from tests.databases import with_database

SPEC = {"timeout_ms": 30_000, "queue_size": 32}


def test_versions_are_numbered_and_deployments_counted(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            rows = Pipelines(session)
            pipeline = await rows.add("line", "ada")
            for text in ("one", "two"):
                await rows.add_version(pipeline, text, f"It is {text}.", "ada")
            assert (pipeline.next_version, pipeline.description) == (3, "It is two.")
            assert [one.version for one in await rows.versions(pipeline.id)] == [2, 1]
            first = await rows.deploy(pipeline.id, 1, SPEC, "ada")
            assert first.generation == 1
            second = await rows.deploy(pipeline.id, 2, SPEC, "bob")
            assert (second.generation, second.version, second.updated_by) == (2, 2, "bob")
            assert [row.pipeline.name for row in await rows.desired()] == ["line"]
        async with database.transaction() as session:
            rows = Pipelines(session)
            found = await rows.by_name("line")
            assert found is not None
            with pytest.raises(Conflict, match="undeploy it first"):
                await rows.delete(found)
            await DefaultTargets(session).put("image", "line", "ada")
            stopped = await rows.undeploy(found.id, "ada")
            assert stopped is not None
            assert (stopped.generation, stopped.running) == (3, False)
            assert await rows.undeploy(found.id, "ada") is None
            assert not await rows.desired()
            before = (await Revisions(session).read_all())["pipelines"]
            await rows.delete(found)
            assert (await Revisions(session).read_all())["pipelines"] > before
            assert await rows.by_name("line") is None
            assert await DefaultTargets(session).all() == {}

    with_database(database_url, work)


def test_a_model_and_a_pipeline_never_share_a_name(database_url: str) -> None:
    async def add(database: Database, what: type[Models] | type[Pipelines]) -> bool:
        try:
            async with database.transaction() as session:
                await what(session).add("same", "tensor")
        except Conflict:
            return False
        return True

    async def work(database: Database) -> None:
        both = await asyncio.gather(add(database, Models), add(database, Pipelines))
        assert sorted(both) == [False, True]
        assert not await add(database, Models)
        assert not await add(database, Pipelines)

    with_database(database_url, work)
