"""The servers on one database: who lives, who is silent, who is forgotten, and what they are called."""

from __future__ import annotations

import asyncio
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from core.access.key_print import key_print
from core.access.key_ring import read_keys, rotate
from core.access.keys import load_or_create_key
from core.access.sealing import KEY_FILE
from core.control import examine_machine
from core.control.nodes import Heart, list_nodes, node_name
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.nodes import Nodes
from core.database.session import Database
from core.database.tables import Node
from core.settings import DatabaseSettings, ServerSettings, Settings
from tests.databases import database_url, with_database

__all__ = ["database_url"]


def settings_for(folder: Path, url: str = "", node: str | None = None) -> Settings:
    database = DatabaseSettings.model_validate({"url": url or None})
    return Settings(data_dir=folder, database=database, server=ServerSettings(node=node, port=8123))


def test_who_beats_lives_and_who_stops_in_order_leaves(database_url: str, tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        first, second = (Heart(database, settings_for(tmp_path, node=name), name) for name in ("a", "b"))
        await first.beat()
        began = (await list_nodes(database))[0].row.started_at
        await second.beat()
        await first.beat()
        states = await list_nodes(database)
        assert [(one.row.name, one.alive, one.row.address) for one in states] == [
            ("a", True, "127.0.0.1:8123"),
            ("b", True, "127.0.0.1:8123"),
        ]
        assert states[0].row.started_at == began
        await first.stop()
        assert [one.row.name for one in await list_nodes(database)] == ["b"]

    with_database(database_url, scenario)


def test_who_is_silent_is_away_and_after_a_week_forgotten_with_what_it_observed(
    database_url: str, tmp_path: Path
) -> None:
    async def silent_for(database: Database, time: timedelta) -> None:
        async with database.transaction() as session:
            row = await session.get(Node, "silent")
            assert row is not None
            row.seen_at -= time
            status = (await Deployments(session).all_observed("silent"))[0]
            status.updated_at -= time

    async def scenario(database: Database) -> None:
        await Heart(database, settings_for(tmp_path), "silent").beat()
        async with database.transaction() as session:
            model = await Models(session).add("m", "tensor")
            await Deployments(session).write_observed(model.id, "silent", generation=1, state="serving")
        other = Heart(database, settings_for(tmp_path), "other")
        await silent_for(database, timedelta(seconds=30))
        await other.beat()
        assert [(one.row.name, one.alive) for one in await list_nodes(database)] == [
            ("other", True),
            ("silent", False),
        ]
        await silent_for(database, timedelta(days=8))
        await other.beat()
        assert [one.row.name for one in await list_nodes(database)] == ["other"]
        async with database.session() as session:
            assert list(await Deployments(session).all_observed()) == []

    with_database(database_url, scenario)


def _keys(folder: Path, *, like: Path | None = None) -> Path:
    """A data directory with keys of its own, or with a copy of those of another."""
    if like is not None:
        shutil.copytree(like / "keys", folder / "keys")
    else:
        rotate(folder / "keys", 60)
        load_or_create_key(folder / "keys", KEY_FILE)
    return folder


def test_a_server_with_other_keys_is_told_of_once_and_the_doctor_names_it(
    database_url: str, tmp_path: Path
) -> None:
    one = _keys(tmp_path / "one")
    folders = {"one": one, "same": _keys(tmp_path / "same", like=one), "other": _keys(tmp_path / "other")}

    async def scenario(database: Database) -> None:
        hearts = {name: Heart(database, settings_for(folder), name) for name, folder in folders.items()}
        with structlog.testing.capture_logs() as logs:
            for name in ("one", "same", "other", "one", "one", "other"):
                await hearts[name].beat()
        told = [(log["node"], log["others"]) for log in logs if log["event"] == "node.keys_differ"]
        assert told == [("other", ["one", "same"]), ("one", ["other"])]
        finding = await examine_machine.keys(settings_for(one), database)
        assert (finding.level, finding.message) == ("error", "other has others: make keys/ the same.")
        shutil.rmtree(folders["other"] / "keys")
        _keys(folders["other"], like=one)
        await hearts["other"].beat()
        assert (await examine_machine.keys(settings_for(one), database)).level == "ok"
        rows = await list_nodes(database)
        assert len({state.row.key_print for state in rows}) == 1

    with_database(database_url, scenario)


def test_what_is_told_of_keys_is_none_of_their_bytes(tmp_path: Path) -> None:
    folder = _keys(tmp_path)
    before = key_print(folder / "keys", 60)
    assert re.fullmatch(r"[0-9a-f]{16}", before)
    secrets = [key.secret.hex() for key in read_keys(folder / "keys")]
    assert not any(before in secret for secret in secrets)
    rotate(folder / "keys", 60)
    assert key_print(folder / "keys", 60) != before
    assert key_print(tmp_path / "none", 60) == ""


def test_two_of_one_name_are_told_of(database_url: str, tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        first, second = (Heart(database, settings_for(tmp_path), "same") for _ in range(2))
        await first.beat()
        with structlog.testing.capture_logs() as logs:
            await second.beat()
            assert logs == [], "as after a restart"
            await first.beat()
        assert [line["event"] for line in logs] == ["node.name_taken"]

    with_database(database_url, scenario)


def test_a_name_is_the_setting_s_or_kept_or_local(tmp_path: Path) -> None:
    served = "postgresql://x@127.0.0.1/x"
    assert node_name(settings_for(tmp_path)) == "local"
    assert node_name(settings_for(tmp_path, served, node="east-1")) == "east-1"
    made = node_name(settings_for(tmp_path, served))
    assert made not in ("", "local")
    assert node_name(settings_for(tmp_path, served)) == made
    (tmp_path / "other").mkdir()
    assert node_name(settings_for(tmp_path / "other", served)) != made


def test_the_database_s_time_is_now(database_url: str) -> None:
    async def scenario(database: Database) -> float:
        from core.database.tables import utc_now

        async with database.session() as session:
            return abs((await Nodes(session).now() - utc_now()).total_seconds())

    assert with_database(database_url, scenario) < 5


def test_a_heart_goes_on_while_the_database_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.control.nodes.BEAT_EVERY_S", 0.01)

    async def scenario() -> None:
        database = Database("postgresql://x@127.0.0.1:9/x", timeout_s=0.2)
        heart = Heart(database, settings_for(tmp_path), "x")
        with structlog.testing.capture_logs() as logs:
            task = asyncio.create_task(heart.run())
            async with asyncio.timeout(10):
                while len(logs) < 3:
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await heart.stop()
        assert {line["event"] for line in logs} == {"node.not_heard", "node.not_left"}
        await database.close()

    asyncio.run(scenario())
