"""Sessions that held a moment ago: how long that is believed, and of whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event

from core.access.held import FRESH_S, MOST, RESUMED_S, WATCHED_S, HeldSessions
from core.access.passwords import hash_password
from core.access.sessions import Principal, SessionService, SignedIn
from core.database.repositories import Sessions, Users
from core.database.session import Database
from core.database.tables import utc_now
from core.errors import Unauthenticated
from core.settings import AccessSettings
from tests.databases import with_database
from tests.one_key import OneKey

PASSWORD = "correct horse"


@dataclass
class House:
    database: Database
    service: SessionService
    now: float = 1000.0
    held: HeldSessions = field(init=False)

    def __post_init__(self) -> None:
        self.held = HeldSessions(self.service, lambda: self.now)

    async def sign_in(self) -> SignedIn:
        return await self.service.login("ada", PASSWORD)


def in_house(url: str, work: Callable[[House], Awaitable[None]], access: AccessSettings | None = None) -> None:
    async def run(database: Database) -> None:
        async with database.transaction() as session:
            await Users(session).add("ada", await hash_password(PASSWORD), "operator")
        service = SessionService(database, OneKey(b"k" * 32), access or AccessSettings())
        await work(House(database, service))

    with_database(url, run)


@contextmanager
def queries() -> Iterator[list[str]]:
    """What is selected meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_what_held_a_moment_ago_is_not_asked_again(database_url: str) -> None:
    async def work(house: House) -> None:
        ada = await house.sign_in()
        with queries() as asked:
            for _ in range(3):
                assert await house.held.resume(ada.cookie) == ada.user
                assert await house.held.holds(ada.user)
            assert len(asked) == 1
            house.now += WATCHED_S
            assert await house.held.resume(ada.cookie) == ada.user
            assert len(asked) == 1
            assert await house.held.holds(ada.user)
            assert len(asked) == 2
            house.now += FRESH_S
            assert await house.held.resume(ada.cookie) == ada.user
            assert len(asked) == 3

    in_house(database_url, work)


def test_all_who_watch_are_asked_about_in_one_query(database_url: str) -> None:
    async def work(house: House) -> None:
        people = [(await house.sign_in()).user for _ in range(5)]
        await house.service.logout(people[3])
        with queries() as asked:
            held = await asyncio.gather(*(house.held.holds(one) for one in people))
        assert held == [True, True, True, False, True]
        assert len(asked) == 1

    in_house(database_url, work)


@pytest.mark.parametrize("ended", ["logout", "disabled", "expired", "password"])
def test_a_session_that_ends_is_believed_for_seconds_at_most(database_url: str, ended: str) -> None:
    async def work(house: House) -> None:
        ada = await house.sign_in()
        await house.held.resume(ada.cookie)
        await _end(house, ada, ended)
        house.now += FRESH_S
        assert not await house.held.holds(ada.user)
        with pytest.raises(Unauthenticated):
            await house.held.resume(ada.cookie)

    in_house(database_url, work)


async def _end(house: House, ada: SignedIn, how: str) -> None:
    if how == "logout":
        await house.service.logout(ada.user)
        return
    if how == "password":
        await house.service.set_password(ada.user.user_id, "battery horse staple")
        return
    async with house.database.transaction() as session:
        row = await Sessions(session).get(ada.user.session_id)
        assert row is not None
        if how == "disabled":
            row.user.disabled = True
        else:
            row.expires_at = utc_now() - timedelta(seconds=1)


def test_an_answer_that_takes_long_is_as_old_as_its_question(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(house: House) -> None:
        ada = await house.sign_in()
        resume = house.service.resume

        async def slowly(cookie: str) -> Principal:
            principal = await resume(cookie)
            await house.service.logout(principal)
            house.now += FRESH_S
            return principal

        monkeypatch.setattr(house.service, "resume", slowly)
        await house.held.resume(ada.cookie)
        assert not await house.held.holds(ada.user)

    in_house(database_url, work)


def test_another_role_is_another_user(database_url: str) -> None:
    async def work(house: House) -> None:
        ada = await house.sign_in()
        assert await house.held.holds(ada.user)
        async with house.database.transaction() as session:
            row = await Sessions(session).get(ada.user.session_id)
            assert row is not None
            row.user.role = "viewer"
        house.now += WATCHED_S
        assert not await house.held.holds(ada.user)
        assert (await house.held.resume(ada.cookie)).role == "viewer"

    in_house(database_url, work)


def test_a_known_session_opens_to_its_own_secret_alone(database_url: str) -> None:
    async def work(house: House) -> None:
        ada = await house.sign_in()
        await house.held.resume(ada.cookie)
        for cookie in (ada.cookie[:-1] + ("a" if ada.cookie[-1] != "a" else "b"), ada.user.session_id + ".", ""):
            with pytest.raises(Unauthenticated):
                await house.held.resume(cookie)
        await house.service.refresh(ada.cookie)  # as if it had been stolen: now there is another secret
        house.now += FRESH_S
        with pytest.raises(Unauthenticated):
            await house.held.resume(ada.cookie)

    in_house(database_url, work)


def test_a_session_that_is_asked_for_again_and_again_does_not_go_idle(database_url: str) -> None:
    async def work(house: House) -> None:
        ada = await house.sign_in()
        await house.held.resume(ada.cookie)
        async with house.database.transaction() as session:
            row = await Sessions(session).get(ada.user.session_id)
            assert row is not None
            row.last_used_at = before = utc_now() - timedelta(seconds=50)
        house.now += RESUMED_S
        await house.held.resume(ada.cookie)
        async with house.database.session() as session:
            row = await Sessions(session).get(ada.user.session_id)
        assert row is not None
        assert row.last_used_at > before

    in_house(database_url, work, AccessSettings(idle_minutes=1))


def test_what_is_known_is_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.access.held.MOST", 2)
    assert MOST == 1000

    async def work(house: House) -> None:
        cookies = [(await house.sign_in()).cookie for _ in range(3)]
        for cookie in cookies:
            await house.held.resume(cookie)
        with queries() as asked:
            await house.held.resume(cookies[2])
            assert not asked
            await house.held.resume(cookies[0])
            assert asked

    in_house(database_url, work)
