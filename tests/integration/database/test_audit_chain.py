"""An entry of the audit log that was taken out, put in or changed shows."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import migration
from core.database.repositories.audit import Audit, ChainReport
from core.database.session import Database
from tests.databases import with_database


async def _write(database: Database, count: int) -> None:
    for number in range(count):
        async with database.transaction() as session:
            await Audit(session).add(
                "ada", "model.create", f"m{number}", detail={"a": [number, "é", 0.1], "z": None}
            )


async def _fail(database: Database) -> None:
    async with database.transaction() as session:
        await Audit(session).add("ada", "model.create")
        raise ZeroDivisionError


async def _verify(database: Database) -> ChainReport:
    async with database.session() as session:
        return await Audit(session).verify()


async def _tamper(database: Database, statement: str) -> None:
    """As somebody who may do anything with the database."""
    async with database.transaction() as session:
        for name in ("audit_log_update", "audit_log_delete"):
            await session.execute(text(_drop(session, name)))
        await session.execute(text(statement))


def _drop(session: AsyncSession, name: str) -> str:
    postgresql = session.get_bind().dialect.name == "postgresql"
    return f"DROP TRIGGER {name} ON audit_log" if postgresql else f"DROP TRIGGER {name}"


def test_what_was_written_side_by_side_is_one_whole_chain(database_url: str) -> None:
    async def work(database: Database) -> None:
        await asyncio.gather(*(_write(database, 5) for _ in range(4)))
        report = await _verify(database)
        assert (report.count, report.findings) == (20, [])
        async with database.session() as session:
            positions = [entry.position async for entry in Audit(session).entries()]
        assert positions == list(range(1, 21))

    with_database(database_url, work)


def test_what_is_rolled_back_leaves_no_gap(database_url: str) -> None:
    async def work(database: Database) -> None:
        await _write(database, 1)
        with pytest.raises(ZeroDivisionError):
            await _fail(database)
        await _write(database, 1)
        report = await _verify(database)
        assert (report.count, report.findings) == (2, [])

    with_database(database_url, work)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM audit_log WHERE position = 3", "entries 3 to 3"),
        ("DELETE FROM audit_log WHERE position = 1", "entries 1 to 1"),
        ("DELETE FROM audit_log WHERE position = 6", "ends at entry 5"),
        ("DELETE FROM audit_log", "ends at entry 0"),
        ("UPDATE audit_log SET subject = 'other' WHERE position = 4", "Entry 4"),
        ("UPDATE audit_log SET detail = '{\"a\": 1}' WHERE position = 4", "Entry 4"),
        ("UPDATE audit_log SET position = 10 - position WHERE position IN (4, 6)", "Entry 4"),
        (
            "INSERT INTO audit_log (at, actor, action, subject, detail, address, request_id) "
            "SELECT at, actor, action, subject, detail, address, request_id FROM audit_log WHERE position = 2",
            "outside",
        ),
    ],
)
def test_tampering_shows(database_url: str, statement: str, finding: str) -> None:
    async def work(database: Database) -> list[str]:
        await _write(database, 6)
        assert (await _verify(database)).findings == []
        if "SET position = 10 - position" in statement:  # the unique index allows it in two steps
            await _tamper(database, "UPDATE audit_log SET position = -position WHERE position IN (4, 6)")
            async with database.transaction() as session:
                await session.execute(text("UPDATE audit_log SET position = 10 + position WHERE position < 0"))
        else:
            await _tamper(database, statement)
        return (await _verify(database)).findings

    findings = with_database(database_url, work)
    assert any(finding in one for one in findings), findings


@pytest.mark.parametrize("statement", ["DELETE FROM audit_log", "UPDATE audit_log SET actor = 'eve'"])
def test_the_database_itself_refuses_changes(database_url: str, statement: str) -> None:
    async def work(database: Database) -> ChainReport:
        await _write(database, 2)
        with pytest.raises(Exception, match="added to"):
            async with database.transaction() as session:
                await session.execute(text(statement))
        return await _verify(database)

    assert with_database(database_url, work).findings == []


def test_entries_from_before_the_chain_are_sealed_by_the_migration(bare_database_url: str) -> None:
    insert = (
        "INSERT INTO audit_log (at, actor, action, subject, detail, address, request_id) "
        "VALUES (:at, 'ada', 'x', 'y', '{\"b\": 1, \"a\": \"\u00e9\"}', '', '')"
    )

    async def before(database: Database) -> None:
        from datetime import UTC, datetime

        at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        async with database.session() as session:
            sqlite = session.get_bind().dialect.name == "sqlite"
            for _ in range(3):
                value = "2026-01-02 03:04:05.000678" if sqlite else at
                await session.execute(text(insert), {"at": value})
            await session.commit()

    asyncio.run(migration.upgrade(bare_database_url, "0007"))
    with_database(bare_database_url, before)
    asyncio.run(migration.upgrade(bare_database_url))

    async def after(database: Database) -> ChainReport:
        await _write(database, 2)
        return await _verify(database)

    report = with_database(bare_database_url, after)
    assert (report.count, report.findings) == (5, [])
    asyncio.run(migration.downgrade(bare_database_url, "0007"))
