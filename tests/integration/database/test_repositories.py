from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import InvalidRequestError

from core.database.repositories import (
    Audit,
    Deployments,
    Models,
    Revisions,
    Sessions,
    Tokens,
    Users,
    Versions,
)
from core.database.repositories.base import decode_cursor, encode_cursor
from core.database.session import Database
from core.database.tables import AccessToken, Deployment, Model, Session, Version, utc_now
from core.errors import BadRequest, Conflict, ModelNotFound
from tests.databases import with_database

HOUR = timedelta(hours=1)


async def add_model(database: Database, name: str = "cat") -> Model:
    async with database.transaction() as session:
        return await Models(session).add(name, "image-classification", created_by="ada")


async def add_version(database: Database, model: Model, **fields: Any) -> Version:
    async with database.transaction() as session:
        return await Versions(session).add_next(
            model.id, **{"format": "onnx", "size_bytes": 2**40, "sha256": "a" * 64, "manifest": {}, **fields}
        )


def a_token(number: int = 0, **fields: Any) -> AccessToken:
    return AccessToken(name=f"token {number}", prefix="pv_abc", hash=number.to_bytes(32, "big"), **fields)


def a_session(session_id: str, user_id: int, **fields: Any) -> Session:
    fields = {"refresh_hash": b"one", "expires_at": utc_now() + HOUR, **fields}
    return Session(id=session_id, user_id=user_id, **fields)


# users


def test_users_are_found_paged_and_removed(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            users = Users(session)
            for name in ("eve", "ada", "cyd", "bob", "dan"):
                await users.add(name, "hash", "viewer")
        async with database.session() as session:
            users = Users(session)
            first, cursor = await users.page(2)
            second, cursor = await users.page(2, cursor)
            third, end = await users.page(2, cursor)
            assert [[user.name for user in page] for page in (first, second, third)] == [
                ["ada", "bob"],
                ["cyd", "dan"],
                ["eve"],
            ]
            assert end is None
        async with database.transaction() as session:
            users = Users(session)
            ada = await users.by_name("ada")
            assert ada is not None
            await Sessions(session).add(a_session("s", ada.id))
            await users.delete(ada)
            assert await users.by_name("ada") is None
            assert await users.get(ada.id) is None
            assert await Sessions(session).get("s") is None

    with_database(database_url, work)


def test_a_page_that_ends_exactly_has_no_next(database_url: str) -> None:
    async def work(database: Database) -> str | None:
        async with database.transaction() as session:
            for name in ("ada", "bob"):
                await Users(session).add(name, "hash", "viewer")
            return (await Users(session).page(2))[1]

    assert with_database(database_url, work) is None


def test_a_taken_name_is_a_conflict_and_the_transaction_goes_on(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            users = Users(session)
            await users.add("ada", "hash", "viewer")
            with pytest.raises(Conflict, match="a user called ada already"):
                await users.add("ada", "other", "admin")
            await users.add("bob", "hash", "viewer")
        async with database.session() as session:
            assert [user.name for user in (await Users(session).page(9))[0]] == ["ada", "bob"]

    with_database(database_url, work)


def test_only_admins_who_may_sign_in_are_counted(database_url: str) -> None:
    async def work(database: Database) -> int:
        async with database.transaction() as session:
            users = Users(session)
            await users.add("ada", "hash", "admin")
            await users.add("bob", "hash", "operator")
            (await users.add("cyd", "hash", "admin")).disabled = True
            return await users.count_active_admins()

    assert with_database(database_url, work) == 1


def test_two_admins_who_remove_each_other_leave_one(database_url: str) -> None:
    async def work(database: Database) -> int:
        async with database.transaction() as session:
            for name in ("ada", "bob"):
                await Users(session).add(name, "hash", "admin")

        async def disable(name: str) -> None:
            async with database.transaction() as session:
                users = Users(session)
                if await users.count_active_admins() > 1:
                    user = await users.by_name(name)
                    assert user is not None
                    user.disabled = True

        await asyncio.gather(disable("ada"), disable("bob"))
        async with database.session() as session:
            return await Users(session).count_active_admins()

    assert with_database(database_url, work) == 1


@pytest.mark.parametrize(
    "cursor", ["", "!", "e30", encode_cursor("x"), encode_cursor(-1), encode_cursor(2**40), "W10"]
)
def test_a_cursor_from_elsewhere_is_a_bad_request(database_url: str, cursor: str) -> None:
    async def work(database: Database) -> None:
        async with database.session() as session:
            await Tokens(session).page(10, cursor)

    with pytest.raises(BadRequest, match="cursor"):
        with_database(database_url, work)


def test_cursors_keep_their_key() -> None:
    assert decode_cursor(encode_cursor("a name"), str) == "a name"
    assert decode_cursor(encode_cursor(7), int) == 7
    with pytest.raises(BadRequest):
        decode_cursor(encode_cursor("nul\0"), str)


# sessions


def test_a_session_comes_with_its_user(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            user = await Users(session).add("ada", "hash", "admin")
            await Sessions(session).add(a_session("s", user.id))
        async with database.session() as session:
            row = await Sessions(session).get("s")
        assert row is not None
        assert row.user.name == "ada"
        assert row.expires_at.tzinfo is not None
        async with database.session() as session:
            lazy = await session.get(Session, "s")
        assert lazy is not None
        with pytest.raises(InvalidRequestError):
            _ = lazy.user

    with_database(database_url, work)


def test_a_refresh_token_is_replaced_once(database_url: str) -> None:
    async def work(database: Database) -> None:
        later = utc_now() + 2 * HOUR
        async with database.transaction() as session:
            user = await Users(session).add("ada", "hash", "admin")
            sessions = Sessions(session)
            await sessions.add(a_session("s", user.id))
            assert await sessions.rotate("s", b"one", b"two", later)
            assert not await sessions.rotate("s", b"one", b"three", later)
        async with database.transaction() as session:
            sessions = Sessions(session)
            row = await sessions.get("s")
            assert row is not None
            assert (row.refresh_hash, row.expires_at) == (b"two", later)
            assert await sessions.revoke("s")
            assert not await sessions.revoke("s")
            assert not await sessions.rotate("s", b"two", b"three", later)

    with_database(database_url, work)


def test_all_sessions_of_a_user_end_but_one(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            ada = await Users(session).add("ada", "hash", "admin")
            bob = await Users(session).add("bob", "hash", "admin")
            sessions = Sessions(session)
            for session_id, user in (("a", ada), ("b", ada), ("c", ada), ("d", bob)):
                await sessions.add(a_session(session_id, user.id))
            assert await sessions.revoke_all_for(ada.id, keep="b") == 2
        async with database.session() as session:
            rows = [await Sessions(session).get(session_id) for session_id in "abcd"]
        assert [row is not None and row.revoked_at is None for row in rows] == [False, True, False, True]

    with_database(database_url, work)


def test_expired_sessions_are_removed(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            user = await Users(session).add("ada", "hash", "admin")
            sessions = Sessions(session)
            await sessions.add(a_session("old", user.id, expires_at=utc_now() - HOUR))
            await sessions.add(a_session("new", user.id))
            assert await sessions.delete_expired(utc_now()) == 1
            assert await sessions.get("old") is None
            assert await sessions.get("new") is not None

    with_database(database_url, work)


# tokens


def test_each_change_of_a_token_raises_the_revision_and_stamps_the_row(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            tokens = Tokens(session)
            one, two = a_token(1), a_token(2, models=["a*"], rate=["1/second"])
            await tokens.add(one)
            await tokens.add(two)
            assert (one.revision, two.revision) == (1, 2)
        async with database.transaction() as session:
            tokens = Tokens(session)
            found = await tokens.get(one.id)
            assert found is not None
            found.name = "renamed"
            await tokens.save(found)
            assert [(row.id, row.name) for row in await tokens.changed_since(2)] == [(one.id, "renamed")]
            await tokens.revoke(found)
            assert [row.id for row in await tokens.changed_since(0)] == [one.id, two.id]
            live = await tokens.all_live()
            assert [(row.id, row.models, row.rate) for row in live] == [(two.id, ["a*"], ["1/second"])]
            assert await Revisions(session).read_all() == {"tokens": 4}

    with_database(database_url, work)


def test_a_change_that_is_rolled_back_leaves_the_revision(database_url: str) -> None:
    async def work(database: Database) -> dict[str, int]:
        async def fail() -> None:
            async with database.transaction() as session:
                await Tokens(session).add(a_token(1))
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        async with database.session() as session:
            return await Revisions(session).read_all()

    assert with_database(database_url, work) == {}


def test_tokens_are_listed_newest_first_and_fetched_in_steps(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            tokens = Tokens(session)
            for number in range(5):
                await tokens.add(a_token(number))
            page, cursor = await tokens.page(3)
            rest, end = await tokens.page(3, cursor)
            assert [token.name for token in (*page, *rest)] == [f"token {n}" for n in (4, 3, 2, 1, 0)]
            assert end is None
            step = await tokens.changed_since(0, limit=2)
            assert [row.name for row in step] == ["token 0", "token 1"]
            assert [row.name for row in await tokens.changed_since(0, after_id=step[-1].id)] == [
                "token 2",
                "token 3",
                "token 4",
            ]

    with_database(database_url, work)


def test_the_same_secret_twice_is_a_conflict(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            await Tokens(session).add(a_token(1))
            await Tokens(session).add(a_token(1))

    with pytest.raises(Conflict):
        with_database(database_url, work)


def test_last_use_only_moves_forward(database_url: str) -> None:
    async def work(database: Database) -> Sequence[datetime | None]:
        early, late = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)
        async with database.transaction() as session:
            tokens = Tokens(session)
            one, two, three = a_token(1), a_token(2), a_token(3)
            for token in (one, two, three):
                await tokens.add(token)
            await tokens.touch_last_used({})
            await tokens.touch_last_used({one.id: late, two.id: early})
            await tokens.touch_last_used({one.id: early, two.id: late, 10_000: late})
        async with database.session() as session:
            rows = [await Tokens(session).get(token.id) for token in (one, two, three)]
            assert (await Revisions(session).read_all())["tokens"] == 3
            return [row.last_used_at if row else None for row in rows]

    late = datetime(2030, 1, 2, tzinfo=UTC)
    assert with_database(database_url, work) == [late, late, None]


# models and versions


def test_models_are_found_by_name_and_searched(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            models = Models(session)
            for name, description in (("tabby", ""), ("cat", "100% TABBY"), ("dog_1", "barks"), ("dogs1", "bark")):
                await models.add(name, "tensor", description=description)
            with pytest.raises(Conflict, match="a model called cat already"):
                await models.add("cat", "tensor")
            found = await models.by_name("cat")
            assert found is not None
            assert found == await models.get(found.id)
            assert await models.by_name("cats") is None

            async def search(text: str) -> list[str]:
                return [model.name for model in (await models.page(10, search=text))[0]]

            assert await search("tabby") == ["cat", "tabby"]
            assert await search("dog_") == ["dog_1"]
            assert await search("%") == ["cat"]
            assert await search("'; DROP TABLE models; --") == []
            page, cursor = await models.page(3)
            assert [model.name for model in page] == ["cat", "dog_1", "dogs1"]
            assert [model.name for model in (await models.page(3, cursor))[0]] == ["tabby"]

    with_database(database_url, work)


def test_a_deployed_model_is_not_deleted(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        await add_version(database, model)
        async with database.transaction() as session:
            await Deployments(session).put(model.id, {"traffic": []})

        async def delete() -> None:
            async with database.transaction() as session:
                found = await Models(session).by_name("cat")
                assert found is not None
                await Models(session).delete(found)

        with pytest.raises(Conflict, match="undeploy it first"):
            await delete()
        async with database.transaction() as session:
            await Deployments(session).undeploy(model.id)
        await delete()
        async with database.session() as session:
            assert await Models(session).by_name("cat") is None
            assert await Versions(session).list(model.id) == []
            assert await Deployments(session).get(model.id) is None

    with_database(database_url, work)


def test_version_numbers_are_given_once_whoever_asks(database_url: str) -> None:
    async def work(database: Database) -> list[int]:
        model = await add_model(database)
        versions = await asyncio.gather(*(add_version(database, model) for _ in range(12)))
        return sorted(version.version for version in versions)

    assert with_database(database_url, work) == list(range(1, 13))


def test_a_number_is_given_back_by_a_rollback_and_to_no_unknown_model(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)

        async def fail() -> None:
            async with database.transaction() as session:
                await Versions(session).add_next(model.id, format="onnx", size_bytes=1, sha256="b", manifest={})
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert (await add_version(database, model)).version == 1
        with pytest.raises(ModelNotFound):
            async with database.transaction() as session:
                await Versions(session).add_next(999, format="onnx", size_bytes=1, sha256="b", manifest={})

    with_database(database_url, work)


def test_versions_are_listed_newest_first(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        await add_version(database, model)
        await add_version(database, model, manifest={"task": "tensor"})
        async with database.session() as session:
            versions = Versions(session)
            assert [row.version for row in await versions.list(model.id)] == [2, 1]
            second = await versions.get(model.id, 2)
            assert second is not None
            assert (second.manifest, second.size_bytes, second.status) == ({"task": "tensor"}, 2**40, "validating")
            assert await versions.get(model.id, 3) is None
            assert await versions.sha256_in_use("a" * 64)
            assert not await versions.sha256_in_use("b" * 64)

    with_database(database_url, work)


def test_a_stale_validation_is_claimed_by_exactly_one(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        stale = await add_version(database, model, claimed_until=utc_now() - HOUR)
        await add_version(database, model, claimed_until=utc_now() + HOUR)

        async def claim() -> Version | None:
            async with database.transaction() as session:
                return await Versions(session).claim_stale(utc_now() + HOUR)

        claimed = [row for row in await asyncio.gather(*(claim() for _ in range(4))) if row is not None]
        assert [(row.id, row.model.name) for row in claimed] == [(stale.id, "cat")]
        assert await claim() is None

    with_database(database_url, work)


def test_a_verdict_about_a_removed_version_is_about_no_other(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        removed = await add_version(database, model, claimed_until=utc_now() + HOUR)
        async with database.transaction() as session:
            row = await Versions(session).get(model.id, 1)
            assert row is not None
            await Versions(session).delete(row)
        other = await add_version(database, model, claimed_until=utc_now() + HOUR)
        assert other.id > removed.id
        async with database.transaction() as session:
            versions = Versions(session)
            assert not await versions.finish(removed.id, "valid", report=[])
            assert not await versions.hold(removed, utc_now() + HOUR, [])
            assert await versions.hold(other, utc_now() + HOUR, [])
            assert await versions.finish(other.id, "valid", report=[])

    with_database(database_url, work)


def test_a_validation_ends_once(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        row = await add_version(database, model, claimed_until=utc_now() + HOUR)
        report = [{"check": "load", "ok": True, "detail": "", "ms": 1.5}]
        async with database.transaction() as session:
            versions = Versions(session)
            assert not await versions.claim(row.id, utc_now() + HOUR)
            assert await versions.finish(row.id, "valid", report=report, signature={"inputs": []})
            assert not await versions.finish(row.id, "invalid", report=[])
        async with database.transaction() as session:
            versions = Versions(session)
            done = await versions.get(model.id, 1)
            assert done is not None
            assert (done.status, done.report, done.signature) == ("valid", report, {"inputs": []})
            assert await versions.claim(row.id, utc_now() + HOUR)

    with_database(database_url, work)


# deployments


def test_each_change_of_a_deployment_is_a_generation_with_history(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        async with database.transaction() as session:
            deployments = Deployments(session)
            assert await deployments.undeploy(model.id) is None
            first = await deployments.put(model.id, {"traffic": [1]}, "ada")
            assert (first.generation, first.running, first.updated_by) == (1, True, "ada")
        async with database.transaction() as session:
            deployments = Deployments(session)
            assert (await deployments.put(model.id, {"traffic": [2]})).generation == 2
            gone = await deployments.undeploy(model.id, "bob")
            assert gone is not None
            assert (gone.generation, gone.running, gone.spec) == (3, False, {"traffic": [2]})
            assert await deployments.undeploy(model.id) is None
            assert (await Revisions(session).read_all())["deployments"] == 3
        async with database.session() as session:
            (row,) = await Deployments(session).desired()
        assert (row.model.name, row.generation) == ("cat", 3)

    with_database(database_url, work)


def test_nothing_is_desired_of_an_unknown_model(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            await Deployments(session).put(99, {})

    with pytest.raises(ModelNotFound):
        with_database(database_url, work)


def test_deploying_at_once_gives_each_its_generation(database_url: str) -> None:
    async def work(database: Database) -> list[int]:
        model = await add_model(database)

        async def put(number: int) -> Deployment:
            async with database.transaction() as session:
                return await Deployments(session).put(model.id, {"traffic": [number]})

        return sorted(row.generation for row in await asyncio.gather(*map(put, range(8))))

    assert with_database(database_url, work) == list(range(1, 9))


def test_a_rollback_goes_to_the_last_other_traffic_that_ran(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        for _ in range(2):
            await add_version(database, model)

        async def previous() -> int | None:
            async with database.session() as session:
                row = await Deployments(session).previous(model.id)
                return row.generation if row else None

        async def put(version: int, **more: Any) -> None:
            async with database.transaction() as session:
                traffic = [{"version": version, "weight": 1}]
                await Deployments(session).put(model.id, {"traffic": traffic, **more})

        assert await previous() is None
        await put(1)
        assert await previous() is None
        await put(2)
        assert await previous() == 1
        async with database.transaction() as session:
            await Deployments(session).undeploy(model.id)
        for queue_size in range(120):  # more than one step of history with the same traffic
            await put(2, queue_size=queue_size)
        assert await previous() == 1
        await put(1)
        assert await previous() == 123

    with_database(database_url, work)


def test_what_is_observed_never_goes_back_a_generation(database_url: str) -> None:
    async def work(database: Database) -> None:
        model = await add_model(database)
        other = await add_model(database, "dog")

        async def write(node: str, generation: int, state: str) -> bool:
            async with database.transaction() as session:
                return await Deployments(session).write_observed(
                    model.id, node, generation=generation, state=state, versions=[{"version": 1}]
                )

        assert await write("a", 2, "loading")
        assert await write("a", 2, "serving")
        assert not await write("a", 1, "failed")
        assert await write("b", 1, "failed")
        async with database.transaction() as session:
            deployments = Deployments(session)
            assert not await deployments.write_observed(999, "a", generation=1, state="failed")
            assert await deployments.write_observed(other.id, "a", generation=1, state="idle", reason="unused")
        async with database.session() as session:
            deployments = Deployments(session)
            seen = [(row.node, row.generation, row.state) for row in await deployments.observed(model.id)]
            assert seen == [("a", 2, "serving"), ("b", 1, "failed")]
            assert [row.state for row in await deployments.all_observed("a")] == ["serving", "idle"]
            assert len(await deployments.all_observed()) == 3
            assert (await deployments.observed(model.id))[0].versions == [{"version": 1}]

    with_database(database_url, work)


# audit and revisions


def test_the_audit_log_is_filtered_and_newest_first(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            audit = Audit(session)
            for actor, action, subject in (
                ("ada", "model.create", "cat"),
                ("bob", "model_create", "cat"),
                ("ada", "token.create", "key"),
                ("ada", "model.delete", "dog"),
            ):
                await audit.add(actor, action, subject, detail={"n": 1}, address="127.0.0.1", request_id="r")

            async def actions(**filters: Any) -> list[str]:
                return [entry.action for entry in (await audit.page(10, **filters))[0]]

            assert await actions() == ["model.delete", "token.create", "model_create", "model.create"]
            assert await actions(actor="bob") == ["model_create"]
            assert await actions(action="model.") == ["model.delete", "model.create"]
            assert await actions(action="model_") == ["model_create"]
            assert await actions(subject="cat", actor="ada") == ["model.create"]
            now = utc_now()
            assert await actions(since=now - HOUR, until=now + HOUR, action="token") == ["token.create"]
            assert await actions(until=now - HOUR) == []
            assert await actions(since=now + HOUR) == []
            page, cursor = await audit.page(3)
            assert len(page) == 3
            assert [entry.action for entry in (await audit.page(3, cursor))[0]] == ["model.create"]

    with_database(database_url, work)


def test_revisions_count_for_themselves(database_url: str) -> None:
    async def work(database: Database) -> None:
        async with database.transaction() as session:
            revisions = Revisions(session)
            assert [await revisions.bump("tokens"), await revisions.bump("tokens")] == [1, 2]
            assert await revisions.bump("models") == 1
            assert await revisions.read_all() == {"tokens": 2, "models": 1}

    with_database(database_url, work)
