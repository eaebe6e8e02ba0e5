from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from core.database import migration
from core.database.repositories import Users
from core.database.session import Database, make_engine
from core.database.tables import Base
from core.database.urls import driver_url
from core.errors import Conflict
from migrations import HEAD
from tests.databases import with_database

ROOT = Path(__file__).parents[3]


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return ScriptDirectory.from_config(config)


def tables(url: str) -> set[str]:
    async def run() -> set[str]:
        engine = make_engine(driver_url(url), pooled=False)
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: set(sa.inspect(sync).get_table_names()))
        await engine.dispose()
        return names

    return asyncio.run(run())


def test_head_is_the_newest_migration() -> None:
    assert scripts().get_heads() == [HEAD]


def test_a_new_database_gets_every_table(bare_database_url: str) -> None:
    assert asyncio.run(migration.is_current(bare_database_url)) is False
    asyncio.run(migration.upgrade(bare_database_url))
    assert tables(bare_database_url) == {*Base.metadata.tables, "alembic_version"}
    assert asyncio.run(migration.current(bare_database_url)) == HEAD
    assert asyncio.run(migration.is_current(bare_database_url)) is True


def test_upgrading_again_changes_nothing(database_url: str) -> None:
    asyncio.run(migration.upgrade(database_url))
    assert asyncio.run(migration.current(database_url)) == HEAD


def test_the_tables_in_the_code_are_those_of_the_migrations(database_url: str) -> None:
    assert asyncio.run(migration.check(database_url)) is None


def test_drift_is_found(database_url: str) -> None:
    from alembic.util import CommandError

    async def drop_an_index() -> None:
        engine = make_engine(driver_url(database_url), pooled=False)
        async with engine.begin() as connection:
            await connection.execute(sa.text("DROP INDEX ix_audit_log_action"))
        await engine.dispose()

    asyncio.run(drop_an_index())
    with pytest.raises(CommandError, match="ix_audit_log_action"):
        asyncio.run(migration.check(database_url))


def test_every_migration_goes_down_and_up_again(database_url: str) -> None:
    for script in scripts().walk_revisions():
        asyncio.run(migration.downgrade(database_url, script.down_revision or "base"))
        asyncio.run(migration.upgrade(database_url, script.revision))
        asyncio.run(migration.downgrade(database_url, script.down_revision or "base"))
    assert tables(database_url) <= {"alembic_version"}
    asyncio.run(migration.upgrade(database_url))
    asyncio.run(migration.check(database_url))
    assert asyncio.run(migration.is_current(database_url))


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    async def age() -> None:
        engine = make_engine(driver_url(database_url), pooled=False)
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        await engine.dispose()

    asyncio.run(age())
    with pytest.raises(Conflict, match="another version"):
        asyncio.run(migration.upgrade(database_url))


def test_processes_that_start_at_once_all_succeed(bare_database_url: str) -> None:
    code = (
        "import asyncio, sys; from core.database import migration; print('up', flush=True); "
        "sys.stdin.readline(); asyncio.run(migration.upgrade(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, bare_database_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, "")] * 3
    assert asyncio.run(migration.is_current(bare_database_url))


def test_a_sqlite_migration_waits_for_the_one_under_way(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"

    async def run() -> tuple[bool, str | None]:
        lock = os.open(tmp_path / "x.db.migrate.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        upgrade = asyncio.create_task(migration.upgrade(url))
        done, _ = await asyncio.wait({upgrade}, timeout=0.5)
        before = await migration.current(url)
        os.close(lock)
        await upgrade
        return bool(done), before

    assert asyncio.run(run()) == (False, None)
    assert asyncio.run(migration.is_current(url))


def test_the_working_directory_does_not_matter(tmp_path: Path) -> None:
    code = "import asyncio, sys; from core.database import migration; asyncio.run(migration.upgrade(sys.argv[1]))"
    url = f"sqlite:///{tmp_path / 'x.db'}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, url], cwd="/", env=environment, check=True, timeout=60)
    assert asyncio.run(migration.is_current(url))


def test_sqlite_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "inner" / "x.db"
    asyncio.run(migration.upgrade(f"sqlite:///{path}"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_asking_creates_no_file(tmp_path: Path) -> None:
    assert asyncio.run(migration.current(f"sqlite:///{tmp_path / 'x.db'}")) is None
    assert list(tmp_path.iterdir()) == []


def test_asking_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    asyncio.run(migration.upgrade(url))
    code = (
        "import asyncio, sys; from core.database import migration; "
        "assert asyncio.run(migration.is_current(sys.argv[1])); print('alembic' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, check=True, timeout=60, capture_output=True, text=True
    )
    assert answer.stdout == "False\n"


def test_tokens_of_before_belong_to_a_tenant(bare_database_url: str) -> None:
    async def on(statement: str) -> list[tuple[object, ...]]:
        engine = make_engine(driver_url(bare_database_url), pooled=False)
        async with engine.begin() as connection:
            found = await connection.execute(sa.text(statement))
            rows = [tuple(row) for row in found] if found.returns_rows else []
        await engine.dispose()
        return rows

    asyncio.run(migration.upgrade(bare_database_url, "0009"))
    for number, tenant in enumerate(("NULL", "NULL", "'Team A'")):
        statement = (
            "INSERT INTO access_tokens (name, prefix, hash, tenant, created_by, created_at, revision) "
            f"VALUES ('robot', 'pv_', '{number}', {tenant}, '', '2026-01-01', 1)"
        )
        asyncio.run(on(statement))
    asyncio.run(migration.upgrade(bare_database_url, "0010"))
    assert asyncio.run(on("SELECT tenant FROM access_tokens ORDER BY id")) == [
        ("default",),
        ("default",),
        ("Team A",),
    ]
    assert sorted(asyncio.run(on("SELECT name FROM tenants"))) == [("Team A",), ("default",)]
    asyncio.run(migration.downgrade(bare_database_url, "0009"))
    assert asyncio.run(on("SELECT tenant FROM access_tokens ORDER BY id")) == [(None,), (None,), ("Team A",)]


def test_an_id_is_given_once(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            first = (await Users(session).add("ada", "x", "admin")).id
            await session.execute(sa.text("DELETE FROM users"))
        async with database.transaction() as session:
            assert (await Users(session).add("bob", "x", "admin")).id > first

    with_database(database_url, work)


def test_tables_give_an_id_once_after_all_migrations(tmp_path: Path) -> None:
    """One that copies a table must say so again."""
    asyncio.run(migration.upgrade(f"sqlite:///{tmp_path / 'p.db'}"))
    with closing(sqlite3.connect(tmp_path / "p.db")) as database:
        made = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    once = {name for name, table in Base.metadata.tables.items() if table.dialect_kwargs["sqlite_autoincrement"]}
    assert {name for name, sql in made.items() if "AUTOINCREMENT" in sql} == once
    others = {name for name, table in Base.metadata.tables.items() if "id" in table.c} - once
    # Of the first two nothing is removed; ids of the others are random, or known to nobody.
    assert others == {"audit_log", "audit_head", "sessions", "recovery_codes"}


def test_tables_are_copied_whole(tmp_path: Path) -> None:
    """Rows, indexes, triggers and the ends of foreign keys of a database that is in use."""
    url = f"sqlite:///{tmp_path / 'p.db'}"
    asyncio.run(migration.upgrade(url, "0018"))
    with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as database:
        for table in Base.metadata.sorted_tables:
            for number in (3, 7):
                _fill(database, table, number)
        before = _content(database)
        asyncio.run(migration.upgrade(url, "0019"))
        assert _content(database) == before
        asyncio.run(migration.downgrade(url, "0018"))
        assert _content(database) == before


def _fill(database: sqlite3.Connection, table: sa.Table, number: int) -> None:
    if table.name in ("audit_head", "revisions"):  # made by the migrations
        return
    columns = {row[1]: row for row in database.execute(f"PRAGMA table_info({table.name})")}
    values = [_value(kind, number) for _, _, kind, _, _, _ in columns.values()]
    names = ", ".join(f'"{name}"' for name in columns)
    database.execute(f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' * len(values))})", values)


def _value(kind: str, number: int) -> object:
    if kind in ("INTEGER", "BIGINT", "BOOLEAN"):
        return number
    return {"JSON": f'["{number}"]', "BLOB": b"%d" % number, "DATETIME": f"2026-01-0{number} 00:00:00"}.get(
        kind, f"é{number}"
    )


def _content(database: sqlite3.Connection) -> dict[str, object]:
    made = database.execute("SELECT name, tbl_name, type FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    tables = [name for name, _, kind in made if kind == "table" and not name.startswith(("sqlite", "alembic"))]
    rows: dict[str, object] = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    keys = {name: sorted(database.execute(f"PRAGMA foreign_key_list({name})")) for name in tables}
    return {**rows, "": keys, "made": sorted(one for one in made if one[2] != "table")}
