"""Tenants: who is refused with all of its tokens, and what is shared with whom."""

from __future__ import annotations

import time
from typing import Any

import pytest

from core.access.tenants import Tenancy
from core.access.tokens import TokenIndex, hash_secret
from core.control.actor import Actor
from core.control.tenant_changes import change_tenant, create_tenant, delete_tenant, share, tenant_called
from core.control.token_changes import change_token, create_token, revoke_token, rotate_token
from core.database.repositories import Audit, Models, Pipelines, Tenants
from core.database.session import Database
from core.errors import Conflict, ModelNotFound, Unauthenticated, Unprocessable
from tests.databases import with_database

ADA = Actor("ada", "127.0.0.1", "r1")


async def tenant(database: Database, name: str, **fields: Any) -> None:
    async with database.transaction() as session:
        await create_tenant(session, name, fields, ADA)


async def token(database: Database, **fields: Any) -> tuple[int, bytes]:
    async with database.transaction() as session:
        made, secret = await create_token(session, {"name": "robot", **fields}, ADA)
    return made.id, secret.encode()


async def shared(database: Database, name: str, tenants: list[str] | None) -> None:
    async with database.transaction() as session:
        await share(session, name, tenants, ADA)


async def indexes(database: Database) -> tuple[Tenancy, TokenIndex]:
    tenancy = Tenancy(database)
    tokens = TokenIndex(database, (), tenancy)
    await tenancy.refresh()
    await tokens.refresh()
    return tenancy, tokens


def test_what_is_not_shared_with_a_tenant_does_not_exist_for_its_tokens(database_url: str) -> None:
    async def work(database: Database) -> None:
        await tenant(database, "red")
        async with database.transaction() as session:
            await Models(session).add("cats", "tensor")
            await Pipelines(session).add("graph", "ada")
        (_, plain), (_, red) = await token(database), await token(database, tenant="red", models=["c*", "graph"])
        tenancy, tokens = await indexes(database)

        def sees() -> list[list[bool]]:
            records = [tokens.lookup(secret) for secret in (plain, red)]
            return [[record.allows_model(name) for name in ("cats", "graph", "dogs")] for record in records]

        assert sees() == [[True, True, True], [True, True, False]]
        await shared(database, "cats", ["red"])
        await shared(database, "graph", [])
        assert await tenancy.refresh()
        assert sees() == [[False, False, True], [True, False, False]]
        await shared(database, "graph", None)
        await tenancy.refresh()
        assert sees() == [[False, True, True], [True, True, False]]
        assert not await tenancy.refresh()

    with_database(database_url, work)


def test_a_name_that_is_given_anew_begins_without_shares(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            model = await Models(session).add("cats", "tensor")
        await shared(database, "cats", [])
        _, secret = await token(database)
        tenancy, tokens = await indexes(database)
        assert not tokens.lookup(secret).allows_model("cats")
        async with database.transaction() as session:
            await Models(session).delete(model)
            await Models(session).add("cats", "tensor")
        await tenancy.refresh()
        assert tokens.lookup(secret).allows_model("cats")

    with_database(database_url, work)


def test_a_disabled_tenant_and_one_that_is_not_known_yet(database_url: str) -> None:
    async def work(database: Database) -> None:
        await tenant(database, "red")
        _, secret = await token(database, tenant="red")
        tenancy = Tenancy(database)
        assert tenancy.of("red").disabled  # nobody has looked yet
        tokens = TokenIndex(database, (), tenancy)
        await tokens.refresh()  # looks for those it did not know
        owner = tokens.lookup(secret).owner
        assert not owner.disabled
        async with database.transaction() as session:
            await change_tenant(session, await tenant_called(session, "red"), {"disabled": True}, ADA)
        await tenancy.refresh()
        assert owner.disabled

    with_database(database_url, work)


def test_a_tenant_with_tokens_stays(database_url: str) -> None:
    async def remove(database: Database, name: str) -> None:
        async with database.transaction() as session:
            await delete_tenant(session, await tenant_called(session, name), ADA)

    async def work(database: Database) -> None:
        await tenant(database, "red")
        async with database.transaction() as session:
            await Models(session).add("cats", "tensor")
        await shared(database, "cats", ["default", "red"])
        token_id, _ = await token(database, tenant="red")
        for name in ("red", "default"):
            with pytest.raises(Conflict):
                await remove(database, name)
        async with database.transaction() as session:
            await revoke_token(session, token_id, ADA)
        await remove(database, "red")
        async with database.session() as session:
            assert await Tenants(session).restricted() == {"cats": ["default"]}
        with pytest.raises(Unprocessable, match="red"):
            await token(database, tenant="red")

    with_database(database_url, work)


@pytest.mark.parametrize("name", ["", "Red", "a/b", "-a", "a" * 64, "ä"])
def test_names_that_a_tenant_cannot_have(database_url: str, name: str) -> None:
    async def work(database: Database) -> None:
        with pytest.raises(Unprocessable, match="name"):
            await tenant(database, name)

    with_database(database_url, work)


def test_what_cannot_be_shared(database_url: str) -> None:
    async def work(database: Database) -> None:
        with pytest.raises(ModelNotFound):
            await shared(database, "nothing", None)
        async with database.transaction() as session:
            await Models(session).add("cats", "tensor")
        with pytest.raises(Unprocessable, match="blue"):
            await shared(database, "cats", ["default", "blue"])
        with pytest.raises(Conflict):
            await tenant(database, "default")

    with_database(database_url, work)


def test_each_change_is_in_the_audit_log_with_what_was_before(database_url: str) -> None:
    async def work(database: Database) -> None:
        await tenant(database, "red", note="first")
        async with database.transaction() as session:
            await change_tenant(session, await tenant_called(session, "red"), {"note": "second"}, ADA)
            await Models(session).add("cats", "tensor")
        await shared(database, "cats", ["red"])
        token_id, _ = await token(database, tenant="red")
        async with database.transaction() as session:
            await change_token(session, token_id, {"tenant": None, "priority": 2}, ADA)
        async with database.session() as session:
            entries, _ = await Audit(session).page(10)
        told = {entry.action: entry.detail for entry in entries}
        assert told["tenant.update"]["before"] == {"note": "first"}
        assert told["model.share"] == {"tenants": ["red"], "before": {"tenants": None}}
        assert told["token.create"]["tenant"] == "red"
        assert told["token.update"]["before"] == {"tenant": "red", "priority": None}

    with_database(database_url, work)


def test_an_old_secret_holds_for_its_grace(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(tokens: TokenIndex, secret: bytes) -> str:
        with pytest.raises(Unauthenticated) as caught:
            tokens.lookup(secret)
        return caught.value.message

    async def rotate(database: Database, token_id: int, grace_s: int) -> bytes:
        async with database.transaction() as session:
            return (await rotate_token(session, token_id, ADA, grace_s=grace_s))[1].encode()

    async def work(database: Database) -> None:
        token_id, first = await token(database)
        _, tokens = await indexes(database)
        second = await rotate(database, token_id, 60)
        await tokens.refresh()
        _, fresh = await indexes(database)
        for index in (tokens, fresh):
            assert index.lookup(first) is index.lookup(second)
        with monkeypatch.context() as later:
            in_a_minute = time.time() + 61
            later.setattr(time, "time", lambda: in_a_minute)
            for index in (tokens, fresh):
                assert "new secret" in refusal(index, first)
                assert index.lookup(second).id == token_id
        third = await rotate(database, token_id, 60)  # one old secret at a time
        await tokens.refresh()
        assert refusal(tokens, first) == "The access token is not valid."
        assert tokens.lookup(second) is tokens.lookup(third)
        fourth = await rotate(database, token_id, 0)
        await tokens.refresh()
        for old in (second, third):
            assert refusal(tokens, old) == "The access token is not valid."
        fifth = await rotate(database, token_id, 60)
        async with database.transaction() as session:
            await revoke_token(session, token_id, ADA)
        await tokens.refresh()
        for secret in (fourth, fifth):
            assert refusal(tokens, secret) == "The access token has been revoked."
        with pytest.raises(Unprocessable):
            await rotate(database, token_id, -1)

    with_database(database_url, work)


def test_secrets_are_in_no_audit_entry(database_url: str) -> None:
    async def work(database: Database) -> None:
        token_id, secret = await token(database)
        async with database.transaction() as session:
            _, fresh = await rotate_token(session, token_id, ADA, grace_s=60)
        async with database.session() as session:
            entries, _ = await Audit(session).page(10)
        said = "".join(str(entry.detail) for entry in entries)
        for text in (secret.decode(), fresh):
            assert text not in said
            assert hash_secret(text).hex() not in said
        assert "'grace_s': 60" in said

    with_database(database_url, work)
