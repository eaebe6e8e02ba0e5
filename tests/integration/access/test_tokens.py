from __future__ import annotations

import asyncio
import gc
import time
from datetime import timedelta
from typing import Any

import pytest
from limits import RateLimitItem
from sqlalchemy import insert

import core.access.tokens as tokens_module
from core.access.rates import parse_rates
from core.access.tokens import TokenIndex, hash_secret, new_secret
from core.database.repositories import Revisions, Tokens
from core.database.session import Database
from core.database.tables import AccessToken, utc_now
from core.errors import Unauthenticated, Unavailable
from tests.databases import with_database


async def add(database: Database, **fields: Any) -> tuple[AccessToken, bytes]:
    secret = new_secret()
    token = AccessToken(name="robot", prefix=secret[:8], hash=hash_secret(secret), **fields)
    async with database.transaction() as session:
        await Tokens(session).add(token)
    return token, secret.encode()


def refusal(index: TokenIndex, secret: bytes) -> str:
    with pytest.raises(Unauthenticated) as caught:
        index.lookup(secret)
    return caught.value.message


def test_a_token_is_found_by_its_secret_with_all_it_says(database_url: str) -> None:
    async def work(database: Database) -> None:
        token, secret = await add(
            database,
            tenant="acme",
            models=["cat-*"],
            operations=["infer"],
            rate=["5/second", "100/day"],
            max_concurrency=3,
            ip_allow=["10.0.0.0/8", "::1"],
            expires_at=utc_now() + timedelta(hours=1),
        )
        index = TokenIndex(database)
        assert refusal(index, secret) == "The access token is not valid."
        assert await index.refresh() == 1
        record = index.lookup(secret)
        assert (record.id, record.name, record.tenant, record.max_concurrency) == (token.id, "robot", "acme", 3)
        assert record.allows_model("cat-1")
        assert not record.allows_model("dog")
        assert record.allows_operation("infer")
        assert not record.allows_operation("train")
        assert [rate.amount for rate in record.rates] == [5, 100]
        assert record.ip_allow is not None
        assert [str(network) for network in record.ip_allow] == ["10.0.0.0/8", "::1/128"]

    with_database(database_url, work)


def test_what_is_left_out_does_not_restrict(database_url: str) -> None:
    async def work(database: Database) -> None:
        _, secret = await add(database)
        index = TokenIndex(database)
        await index.refresh()
        record = index.lookup(secret)
        assert record.allows_model("anything")
        assert record.allows_operation("anything")
        assert (record.rates, record.expires_at, record.ip_allow) == ((), None, None)

    with_database(database_url, work)


def test_only_tokens_without_a_rate_get_the_default_one(database_url: str) -> None:
    async def rates(database: Database) -> list[tuple[RateLimitItem, ...]]:
        (_, plain), (_, own), (_, free) = (
            await add(database),
            await add(database, rate=["1/day"]),
            await add(database, rate=[]),
        )
        index = TokenIndex(database, parse_rates(["7/second"]))
        await index.refresh()
        return [index.lookup(secret).rates for secret in (plain, own, free)]

    assert with_database(database_url, rates) == [parse_rates(["7/second"]), parse_rates(["1/day"]), ()]


def test_each_refusal_says_why(database_url: str) -> None:
    async def work(database: Database) -> None:
        _, expired = await add(database, expires_at=utc_now() - timedelta(seconds=1))
        token, revoked = await add(database)
        _, good = await add(database)
        index = TokenIndex(database)
        await index.refresh()
        async with database.transaction() as session:
            row = await Tokens(session).get(token.id)
            assert row is not None
            await Tokens(session).revoke(row)
        assert index.lookup(revoked).id == token.id
        assert await index.refresh() == 1
        assert refusal(index, expired) == "The access token has expired."
        assert refusal(index, revoked) == "The access token has been revoked."
        for secret in (
            b"",
            b"pv_",
            good[:-1],
            good + b"=",
            b"x" * 46,
            good.upper(),
            b"\xff" * 46,
            b"pv_" * 10_000,
        ):
            assert refusal(index, secret) == "The access token is not valid."
        assert index.lookup(good).name == "robot"
        fresh = TokenIndex(database)
        await fresh.refresh()
        assert refusal(fresh, revoked) == "The access token has been revoked."
        assert len(fresh) == len(index) == 2

    with_database(database_url, work)


def test_only_so_many_revoked_tokens_are_remembered(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "REVOKED_KEPT", 2)

    async def work(database: Database) -> None:
        made = [await add(database) for _ in range(3)]
        index = TokenIndex(database)
        await index.refresh()
        for token, _ in (made[1], made[2], made[0]):
            async with database.transaction() as session:
                row = await Tokens(session).get(token.id)
                assert row is not None
                await Tokens(session).revoke(row)
            await index.refresh()
        fresh = TokenIndex(database)
        await fresh.refresh()
        for known in (index, fresh):
            said = [refusal(known, secret) for _, secret in made]
            assert said == [
                f"The access token {what}." for what in ("has been revoked", "is not valid", "has been revoked")
            ]

    with_database(database_url, work)


def test_a_rotated_secret_replaces_the_old_one(database_url: str) -> None:
    async def work(database: Database) -> None:
        token, old = await add(database)
        index = TokenIndex(database)
        await index.refresh()
        new = new_secret()
        async with database.transaction() as session:
            row = await Tokens(session).get(token.id)
            assert row is not None
            row.hash = hash_secret(new)
            await Tokens(session).save(row)
        await index.refresh()
        assert refusal(index, old) == "The access token is not valid."
        assert index.lookup(new.encode()).id == token.id
        assert len(index) == 1

    with_database(database_url, work)


def test_a_refresh_without_changes_fetches_nothing(database_url: str) -> None:
    async def work(database: Database) -> list[int]:
        await add(database)
        index = TokenIndex(database)
        counts = [await index.refresh(), await index.refresh()]
        await add(database)
        return [*counts, *sorted(await asyncio.gather(index.refresh(), index.refresh()))]

    assert with_database(database_url, work) == [1, 0, 0, 1]


@pytest.mark.parametrize("fields", [{"rate": ["often"]}, {"ip_allow": ["everywhere"]}])
def test_a_token_whose_restrictions_cannot_be_read_is_closed(database_url: str, fields: dict[str, Any]) -> None:
    async def work(database: Database) -> str:
        _, secret = await add(database, **fields)
        index = TokenIndex(database)
        await index.refresh()
        return refusal(index, secret)

    assert with_database(database_url, work) == "The access token has been revoked."


def test_last_use_is_written_when_flushed(database_url: str) -> None:
    async def work(database: Database) -> None:
        token, _ = await add(database)
        index = TokenIndex(database)
        for _ in range(3):
            index.note_used(token.id)
        assert await index.flush_last_used() == 1
        assert await index.flush_last_used() == 0
        async with database.session() as session:
            row = await Tokens(session).get(token.id)
        assert row is not None
        assert row.last_used_at is not None
        assert abs(row.last_used_at - utc_now()) < timedelta(minutes=1)

    with_database(database_url, work)


def test_what_cannot_be_flushed_is_kept_for_later() -> None:
    async def work(database: Database) -> None:
        index = TokenIndex(database)
        index.note_used(7)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await index.flush_last_used()

    with_database("sqlite:////nowhere/at/all/x.db", work)


def test_a_hundred_thousand_tokens_are_taken_over_without_holding_up_the_loop(database_url: str) -> None:
    count = 100_000

    async def work(database: Database) -> None:
        async with database.transaction() as session:
            revision = await Revisions(session).bump("tokens")
            rows = [
                {
                    "name": "n",
                    "prefix": "p",
                    "hash": n.to_bytes(32, "big"),
                    "revision": revision,
                    "rate": ["9/day"],
                }
                for n in range(count)
            ]
            await session.execute(insert(AccessToken), rows)
        index = TokenIndex(database)
        refresh = asyncio.create_task(index.refresh())
        longest, last = 0.0, time.thread_time()  # its own: the machine may have other work
        while not refresh.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now
        assert await refresh == len(index) == count
        assert longest < 0.5

    gc.collect()
    gc.freeze()  # as the server does at its start: what other tests have left is not walked in the time measured
    try:
        with_database(database_url, work, timeout_s=60)
    finally:
        gc.unfreeze()
