"""Tokens that end soon are told of in time."""

from __future__ import annotations

from datetime import timedelta

from structlog.testing import capture_logs

from core.access.tokens import TokenIndex
from core.control.actor import SYSTEM
from core.control.reminders import remind
from core.control.token_changes import create_token, revoke_token
from core.database.repositories import Tokens
from core.database.session import Database
from core.database.tables import utc_now
from tests.databases import with_database


def test_what_ends_soon_is_listed_logged_and_counted(database_url: str) -> None:
    async def work(database: Database) -> None:
        ids = {}
        async with database.transaction() as session:
            for name, days in (("later", 30), ("second", 3), ("first", 1), ("revoked", 1), ("never", None)):
                ends = None if days is None else utc_now() + timedelta(days=days)
                token, _ = await create_token(session, {"name": name, "expires_at": ends}, SYSTEM)
                ids[name] = token.id
            await revoke_token(session, ids["revoked"], SYSTEM)
        async with database.session() as session:
            tokens, count = await Tokens(session).expiring(utc_now() + timedelta(days=14), 1)
        assert ([token.name for token in tokens], count) == (["first"], 2)
        with capture_logs() as logs:
            assert await remind(database, 14) == 2
        assert [(line["event"], line["name"], line["tenant"]) for line in logs] == [
            ("token.expires_soon", "first", "default"),
            ("token.expires_soon", "second", "default"),
        ]
        index = TokenIndex(database)
        await index.refresh()
        assert [index.expiring(days * 86_400) for days in (2, 14, 60)] == [1, 2, 3]
        async with database.transaction() as session:
            await revoke_token(session, ids["first"], SYSTEM)
        await index.refresh()
        assert index.expiring(2 * 86_400) == 0

    with_database(database_url, work)
