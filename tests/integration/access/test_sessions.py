from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwt

from core.access.bootstrap import ensure_first_admin
from core.access.jwt import Claims, sign
from core.access.passwords import hash_password
from core.access.roles import Role
from core.access.sessions import SessionService, SignedIn
from core.database.repositories import Audit, Sessions, Users
from core.database.session import Database
from core.database.tables import utc_now
from core.errors import Unauthenticated, Unprocessable
from core.settings import AccessSettings
from tests.databases import with_database
from tests.one_key import OneKey

KEY = b"k" * 32
PASSWORD = "correct horse"


@dataclass
class House:
    database: Database
    service: SessionService

    async def login(self) -> SignedIn:
        return await self.service.login("ada", PASSWORD, "127.0.0.1", "curl/8")

    async def change(self, **fields: Any) -> None:
        async with self.database.transaction() as session:
            user = await Users(session).by_name("ada")
            assert user is not None
            for name, value in fields.items():
                setattr(user, name, value)


def in_house(url: str, work: Callable[[House], Awaitable[None]]) -> None:
    async def run(database: Database) -> None:
        async with database.transaction() as session:
            await Users(session).add("ada", await hash_password(PASSWORD), "operator")
        await work(House(database, SessionService(database, OneKey(KEY), AccessSettings())))

    with_database(url, run)


async def refused(awaitable: Awaitable[object]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await awaitable
    return caught.value.message


def test_signing_in_gives_a_token_that_speaks_for_the_user(database_url: str) -> None:
    async def work(house: House) -> None:
        signed_in = await house.login()
        principal = await house.service.authenticate(signed_in.token)
        assert principal == signed_in.user
        assert (principal.name, principal.role) == ("ada", Role.OPERATOR)
        assert timedelta(minutes=29) < signed_in.expires_at - utc_now() <= timedelta(minutes=30)
        async with house.database.session() as session:
            row = await Sessions(session).get(principal.session_id)
        assert row is not None
        assert (row.address, row.user_agent) == ("127.0.0.1", "curl/8")
        assert signed_in.refresh_token.encode() not in row.refresh_hash

    in_house(database_url, work)


def test_whatever_is_wrong_the_answer_is_the_same(database_url: str) -> None:
    async def work(house: House) -> None:
        attempts = [("ada", "wrong password"), ("bob", PASSWORD), ("ada\0", PASSWORD), ("\ud800", PASSWORD)]
        attempts += [("", ""), ("Ada", PASSWORD), ("' OR 1=1 --", PASSWORD), ("ada", PASSWORD + "x" * 5000)]
        answers = {await refused(house.service.login(*attempt)) for attempt in attempts}
        await house.change(disabled=True)
        answers.add(await refused(house.login()))
        assert answers == {"The user name or the password is wrong."}

    in_house(database_url, work)


def test_an_unknown_user_takes_as_long_as_a_wrong_password(database_url: str) -> None:
    async def work(house: House) -> None:
        async def seconds(name: str) -> float:
            started = time.process_time()  # of all threads: what else the machine does is not in it
            await refused(house.service.login(name, "wrong password"))
            return time.process_time() - started

        # Without the dummy hash the ratio is far over 10.
        pairs = [(await seconds("ada"), await seconds("bob")) for _ in range(9)]
        known, unknown = (min(times) for times in zip(*pairs, strict=True))
        assert 0.5 < known / unknown < 2

    in_house(database_url, work)


def test_logging_out_ends_the_session_at_once(database_url: str) -> None:
    async def work(house: House) -> None:
        one, two = await house.login(), await house.login()
        await house.service.logout(one.user)
        await refused(house.service.authenticate(one.token))
        await refused(house.service.refresh(one.refresh_token))
        assert (await house.service.authenticate(two.token)).name == "ada"

    in_house(database_url, work)


def test_disabling_and_roles_take_effect_at_once(database_url: str) -> None:
    async def work(house: House) -> None:
        signed_in = await house.login()
        await house.change(role="viewer")
        assert (await house.service.authenticate(signed_in.token)).role is Role.VIEWER
        await house.change(disabled=True)
        await refused(house.service.authenticate(signed_in.token))
        await refused(house.service.refresh(signed_in.refresh_token))

    in_house(database_url, work)


def test_a_refresh_gives_a_new_pair_of_the_same_session(database_url: str) -> None:
    async def work(house: House) -> None:
        first = await house.login()
        second = await house.service.refresh(first.refresh_token)
        third = await house.service.refresh(second.refresh_token)
        assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
        assert first.user == third.user
        assert await house.service.authenticate(third.token) == first.user

    in_house(database_url, work)


def test_a_refresh_token_used_twice_ends_the_session(database_url: str) -> None:
    async def work(house: House) -> None:
        first = await house.login()
        second = await house.service.refresh(first.refresh_token)
        await refused(house.service.refresh(first.refresh_token))
        await refused(house.service.refresh(second.refresh_token))
        await refused(house.service.authenticate(second.token))

    in_house(database_url, work)


def test_of_two_refreshes_at_once_at_most_one_is_answered(database_url: str) -> None:
    async def work(house: House) -> None:
        first = await house.login()
        answers = await asyncio.gather(
            *(house.service.refresh(first.refresh_token) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(answer) for answer in answers if isinstance(answer, Exception)) == [Unauthenticated]

    in_house(database_url, work)


@pytest.mark.parametrize("token", ["", ".", "x", "nope.nope", "a" * 5000, "\0.\0", "é.é", "' OR 1=1.x"])
def test_a_refresh_token_that_is_none_is_refused(database_url: str, token: str) -> None:
    async def work(house: House) -> None:
        assert "sign in again" in await refused(house.service.refresh(token))

    in_house(database_url, work)


def test_an_expired_session_is_refused(database_url: str) -> None:
    async def work(house: House) -> None:
        signed_in = await house.login()
        async with house.database.transaction() as session:
            row = await Sessions(session).get(signed_in.user.session_id)
            assert row is not None
            row.expires_at = utc_now() - timedelta(seconds=1)
        await refused(house.service.authenticate(signed_in.token))
        await refused(house.service.refresh(signed_in.refresh_token))
        await house.login()  # which also clears away what has expired
        async with house.database.session() as session:
            assert await Sessions(session).get(signed_in.user.session_id) is None

    in_house(database_url, work)


def test_changing_the_password_ends_the_other_sessions(database_url: str) -> None:
    async def work(house: House) -> None:
        mine, other = await house.login(), await house.login()
        assert "present password" in await refused(
            house.service.change_password(mine.user, "wrong one", "new password")
        )
        with pytest.raises(Unprocessable, match="at least 8"):
            await house.service.change_password(mine.user, PASSWORD, "short")
        await house.service.change_password(mine.user, PASSWORD, "new password")
        assert await house.service.authenticate(mine.token) == mine.user
        await refused(house.service.authenticate(other.token))
        await refused(house.login())
        assert (await house.service.login("ada", "new password")).user.name == "ada"

    in_house(database_url, work)


# forged tokens: each is first shown to be what it claims to be


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.get_unverified_claims(token))


def forge(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def test_a_token_without_signature_is_refused(database_url: str) -> None:
    async def work(house: House) -> None:
        good = (await house.login()).token
        for name in ("none", "None", "NONE", "nOnE"):
            forged = forge({"alg": name, "typ": "JWT"}, claims_of(good))
            assert claims_of(forged) == claims_of(good)
            await refused(house.service.authenticate(forged))
        await refused(house.service.authenticate(good.rpartition(".")[0] + "."))

    in_house(database_url, work)


def test_a_token_signed_with_another_key_or_changed_is_refused(database_url: str) -> None:
    async def work(house: House) -> None:
        signed_in = await house.login()
        good = signed_in.token
        head, body, signature = good.split(".")
        promoted = forge({}, {**claims_of(good), "sub": "1234"}).split(".")[1]
        other = sign(Claims(signed_in.user.user_id, signed_in.user.session_id), b"x" * 32, signed_in.expires_at)
        assert claims_of(other)["jti"] == claims_of(good)["jti"]
        for forged in (other, f"{head}.{promoted}.{signature}", f"{head}.{body}.{signature[:-2]}AA"):
            await refused(house.service.authenticate(forged))
        assert (await house.service.authenticate(good)).name == "ada"

    in_house(database_url, work)


def test_other_algorithms_are_refused_even_with_our_key(database_url: str) -> None:
    async def work(house: House) -> None:
        claims = claims_of((await house.login()).token)
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for forged in (
            jwt.encode(claims, KEY, algorithm="HS512"),
            jwt.encode(claims, KEY, algorithm="HS384"),
            jwt.encode(claims, pem.decode(), algorithm="RS256"),
        ):
            assert claims_of(forged) == claims
            await refused(house.service.authenticate(forged))

    in_house(database_url, work)


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "tomorrow"},
        {"aud": "pulvinar-external"},
        {"aud": None},
        {"iss": "someone-else"},
        {"iss": None},
        {"jti": None},
        {"jti": "0" * 32},
        {"sub": None},
        {"sub": "9999"},
        {"sub": "ada"},
        {"iat": None},
    ],
)
def test_a_token_with_a_wrong_or_missing_claim_is_refused(database_url: str, change: dict[str, Any]) -> None:
    async def work(house: House) -> None:
        good = claims_of((await house.login()).token)
        assert await house.service.authenticate(jwt.encode(good, KEY, algorithm="HS256"))
        changed = {name: value for name, value in {**good, **change}.items() if value is not None}
        await refused(house.service.authenticate(jwt.encode(changed, KEY, algorithm="HS256")))

    in_house(database_url, work)


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "x" * 100_000, "é", "\0", "e30.e30.e30", "\ud800"])
def test_what_is_no_token_is_refused(database_url: str, token: str) -> None:
    async def work(house: House) -> None:
        assert "sign in again" in await refused(house.service.authenticate(token))

    in_house(database_url, work)


# the first user


def test_an_empty_database_gets_an_admin_once(database_url: str) -> None:
    async def work(database: Database) -> None:
        passwords = await asyncio.gather(*(ensure_first_admin(database, None) for _ in range(3)))
        (password,) = [password for password in passwords if password is not None]
        service = SessionService(database, OneKey(KEY), AccessSettings())
        assert (await service.login("admin", password)).user.role is Role.ADMIN
        assert await ensure_first_admin(database, None) is None
        async with database.session() as session:
            entries, _ = await Audit(session).page(10)
        assert [(entry.actor, entry.action, entry.subject) for entry in entries] == [
            ("system", "user.create", "admin")
        ]

    with_database(database_url, work)


def test_the_first_admin_may_be_given_a_password(database_url: str) -> None:
    async def work(database: Database) -> None:
        with pytest.raises(Unprocessable):
            await ensure_first_admin(database, "short")
        assert await ensure_first_admin(database, PASSWORD) is None
        service = SessionService(database, OneKey(KEY), AccessSettings())
        assert (await service.login("admin", PASSWORD)).user.name == "admin"

    with_database(database_url, work)
