"""The steps of signing in: second factors, passwords that must be changed, attempts that are counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pyotp
import pytest

from core.access.bootstrap import ensure_first_admin
from core.access.limits import RateLimiter
from core.access.lockout import MOST_WAITING, Attempts
from core.access.own_account import OwnAccount
from core.access.passwords import hash_password
from core.access.sealing import Sealer
from core.access.second_factor import SecondFactors
from core.access.sessions import Caller, Principal, SessionService, SignedIn, Stage
from core.access.sign_in import SignIn
from core.control import user_changes
from core.control.actor import Actor
from core.database.repositories import Audit, Users
from core.database.session import Database
from core.errors import (
    Conflict,
    LimitExceeded,
    PasswordChangeRequired,
    SecondFactorRequired,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from core.settings import AccessSettings
from tests.databases import with_database
from tests.one_key import OneKey

PASSWORD = "correct horse"
CALLER = Caller("203.0.113.1", "curl/8", "request-1")
BOSS = Actor("boss")


@dataclass
class Clock:
    now_s: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now_s


class House:
    def __init__(self, database: Database, rate: str = "1000/day") -> None:
        access = AccessSettings(login_rate="1000/day", user_failure_rate=rate)
        self.database = database
        self.clock = Clock()
        self.sessions = SessionService(database, OneKey(b"k" * 32), access)
        self.factors = SecondFactors(database, Sealer(b"s" * 32), self.clock)
        attempts = Attempts(RateLimiter(), access)
        self.sign_in = SignIn(database, self.sessions, self.factors, attempts)
        self.own = OwnAccount(database, self.sessions, self.factors, attempts)

    async def login(self, password: str = PASSWORD) -> SignedIn:
        return await self.sign_in.with_password("ada", password, CALLER)

    async def enrol(self) -> tuple[str, list[str], Principal]:
        principal = (await self.login()).user
        secret = (await self.own.begin_second_factor(principal, PASSWORD, CALLER)).secret
        codes = await self.own.confirm_second_factor(principal, self.code(secret), CALLER)
        self.clock.now_s += 30
        return secret, codes, principal

    def code(self, secret: str) -> str:
        return pyotp.TOTP(secret).at(int(self.clock.now_s))

    async def change(self, **changes: object) -> None:
        async with self.database.transaction() as session:
            await user_changes.change_user(session, "ada", changes, BOSS)

    async def actions(self) -> list[str]:
        async with self.database.session() as session:
            return [entry.action for entry in reversed((await Audit(session).page(100))[0])]


def in_house(url: str, work: Callable[[House], Awaitable[None]], rate: str = "1000/day") -> None:
    async def run(database: Database) -> None:
        async with database.transaction() as session:
            await Users(session).add("ada", await hash_password(PASSWORD), "operator")
        await work(House(database, rate))

    with_database(url, run)


def test_a_second_factor_from_its_enrolment_to_its_end(database_url: str) -> None:
    async def work(house: House) -> None:
        other = await house.login()
        secret, codes, principal = await house.enrol()
        with pytest.raises(Unauthenticated):  # what was open elsewhere has ended
            await house.sessions.authenticate(other.token)
        assert (await house.own.second_factor(principal)).recovery_codes_left == len(codes) == 10
        half = await house.login()
        assert (half.user.stage, half.refresh_token) == (Stage.SECOND_FACTOR, None)
        with pytest.raises(SecondFactorRequired):
            await house.sessions.authenticate(half.token)
        with pytest.raises(Unauthenticated):
            await house.sign_in.with_second_factor(half.user, "000000", CALLER)
        code = house.code(secret)
        whole = await house.sign_in.with_second_factor(half.user, code, CALLER)
        assert (await house.sessions.authenticate(whole.token)).name == "ada"
        assert whole.user.session_id != half.user.session_id
        with pytest.raises(Unauthenticated):  # a step is taken once
            await house.sign_in.with_second_factor(half.user, codes[0], CALLER)
        house.clock.now_s += 30
        await house.own.drop_second_factor(whole.user, house.code(secret), CALLER)
        assert (await house.login()).user.stage is Stage.OPEN
        assert await house.actions() == [
            "auth.login",
            "auth.login",
            "auth.totp_begin",
            "auth.totp_enable",
            "auth.second_factor_failed",
            "auth.login",
            "auth.totp_disable",
            "auth.login",
        ]

    in_house(database_url, work)


def test_no_code_works_twice(database_url: str) -> None:
    async def work(house: House) -> None:
        secret, codes, _ = await house.enrol()
        for code in (house.code(secret), codes[3]):
            halves = [await house.login() for _ in range(2)]
            answers = await asyncio.gather(
                *(house.sign_in.with_second_factor(half.user, code, CALLER) for half in halves),
                return_exceptions=True,
            )
            assert sorted(type(answer).__name__ for answer in answers) == ["SignedIn", "Unauthenticated"]
            with pytest.raises(Unauthenticated):
                await house.sign_in.with_second_factor((await house.login()).user, code, CALLER)

    in_house(database_url, work)


def test_new_recovery_codes_end_the_old_ones(database_url: str) -> None:
    async def work(house: House) -> None:
        secret, old, principal = await house.enrol()
        new = await house.own.renew_recovery_codes(principal, house.code(secret), CALLER)
        with pytest.raises(Unauthenticated):
            await house.sign_in.with_second_factor((await house.login()).user, old[0], CALLER)
        await house.sign_in.with_second_factor((await house.login()).user, new[0].upper(), CALLER)
        assert (await house.own.second_factor(principal)).recovery_codes_left == 9

    in_house(database_url, work)


def test_an_enrolment_that_was_not_confirmed_asks_for_nothing(database_url: str) -> None:
    async def work(house: House) -> None:
        principal = (await house.login()).user
        with pytest.raises(Conflict):
            await house.own.confirm_second_factor(principal, "123456", CALLER)
        with pytest.raises(Unauthenticated):
            await house.own.begin_second_factor(principal, "not the password", CALLER)
        first = await house.own.begin_second_factor(principal, PASSWORD, CALLER)
        second = await house.own.begin_second_factor(principal, PASSWORD, CALLER)
        with pytest.raises(Unauthenticated):  # the first one is forgotten
            await house.own.confirm_second_factor(principal, house.code(first.secret), CALLER)
        assert (await house.login()).user.stage is Stage.OPEN
        await house.own.confirm_second_factor(principal, house.code(second.secret), CALLER)
        with pytest.raises(Conflict):
            await house.own.begin_second_factor(principal, PASSWORD, CALLER)

    in_house(database_url, work)


def test_a_code_from_the_enrolment_is_not_let_in_again(database_url: str) -> None:
    async def work(house: House) -> None:
        secret, _, _ = await house.enrol()
        house.clock.now_s -= 30
        with pytest.raises(Unauthenticated):
            await house.sign_in.with_second_factor((await house.login()).user, house.code(secret), CALLER)

    in_house(database_url, work)


def test_an_administrator_resets_the_second_factor_of_another(database_url: str) -> None:
    async def work(house: House) -> None:
        _, _, principal = await house.enrol()
        async with house.database.transaction() as session:
            await user_changes.reset_second_factor(session, "ada", BOSS)
        assert not await house.sessions.open_sessions(principal.user_id)
        assert (await house.login()).user.stage is Stage.OPEN
        with pytest.raises(Conflict):
            async with house.database.transaction() as session:
                await user_changes.reset_second_factor(session, "ada", BOSS)

    in_house(database_url, work)


def test_the_secret_is_sealed_and_without_the_key_the_way_in_is_closed(database_url: str) -> None:
    async def work(house: House) -> None:
        secret, codes, _ = await house.enrol()
        async with house.database.session() as session:
            user = await Users(session).by_name("ada")
            assert user is not None
            assert user.totp_sealed is not None
            assert secret.encode() not in user.totp_sealed
        half = await house.login()
        stranger = SecondFactors(house.database, Sealer(b"x" * 32), house.clock)
        with pytest.raises(Unavailable):
            await stranger.check(half.user.user_id, house.code(secret))
        assert await stranger.check(half.user.user_id, codes[0]) == "recovery code"

    in_house(database_url, work)


def test_a_password_that_must_be_changed_opens_nothing_else(database_url: str) -> None:
    async def work(house: House) -> None:
        await house.change(must_change_password=True)
        signed_in = await house.login()
        assert signed_in.user.stage is Stage.PASSWORD
        with pytest.raises(PasswordChangeRequired):
            await house.sessions.authenticate(signed_in.token)
        assert signed_in.refresh_token is not None
        refreshed = await house.sign_in.refresh(signed_in.refresh_token, CALLER)
        with pytest.raises(PasswordChangeRequired):
            await house.sessions.authenticate(refreshed.token)
        with pytest.raises(Unprocessable, match="present one"):
            await house.own.change_password(signed_in.user, PASSWORD, PASSWORD, CALLER)
        await house.own.change_password(signed_in.user, PASSWORD, "another long one", CALLER)
        assert (await house.sessions.authenticate(refreshed.token)).stage is Stage.OPEN
        assert (await house.login("another long one")).user.stage is Stage.OPEN

    in_house(database_url, work)


def test_both_steps_where_both_are_due(database_url: str) -> None:
    async def work(house: House) -> None:
        secret, _, _ = await house.enrol()
        await house.change(must_change_password=True)
        half = await house.login()
        assert half.user.stage is Stage.SECOND_FACTOR
        whole = await house.sign_in.with_second_factor(half.user, house.code(secret), CALLER)
        assert whole.user.stage is Stage.PASSWORD

    in_house(database_url, work)


def test_a_random_first_password_must_be_changed_and_a_given_one_need_not(database_url: str) -> None:
    async def work(database: Database) -> None:
        made = await ensure_first_admin(database, None)
        assert made is not None
        service = SessionService(database, OneKey(b"k" * 32), AccessSettings())
        assert (await service.login("admin", made)).user.stage is Stage.PASSWORD

    async def given(database: Database) -> None:
        async with database.transaction() as session:
            user = await Users(session).by_name("admin")
            assert user is not None
            await Users(session).delete(user)
        await ensure_first_admin(database, PASSWORD)
        service = SessionService(database, OneKey(b"k" * 32), AccessSettings())
        assert (await service.login("admin", PASSWORD)).user.stage is Stage.OPEN

    with_database(database_url, work)
    with_database(database_url, given)


def test_guesses_at_once_are_no_more_than_guesses_in_turn(database_url: str) -> None:
    async def work(house: House) -> None:
        guesses = [house.login(f"guess {number}") for number in range(MOST_WAITING + 4)]
        answers = await asyncio.gather(*guesses, return_exceptions=True)
        names = [type(answer).__name__ for answer in answers]
        assert names.count("Unauthenticated") == 3
        assert names.count("LimitExceeded") == MOST_WAITING + 1
        with pytest.raises(LimitExceeded) as caught:
            await house.login()
        assert caught.value.retry_after_s is not None

    in_house(database_url, work, rate="3/day")


def test_codes_and_passwords_are_guessed_from_one_purse(database_url: str) -> None:
    """Whoever has the password, or a session, does not get more guesses at the code by it."""

    async def work(house: House) -> None:
        secret, codes, principal = await house.enrol()
        half = await house.login()
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await house.sign_in.with_second_factor(half.user, "000000", CALLER)
        with pytest.raises(Unauthenticated):
            await house.own.change_password(principal, "wrong", "another long one", CALLER)
        for attempt in (
            house.sign_in.with_second_factor(half.user, house.code(secret), CALLER),
            house.sign_in.with_second_factor(half.user, codes[0], CALLER),
            house.own.drop_second_factor(principal, house.code(secret), CALLER),
            house.own.change_password(principal, PASSWORD, "another long one", CALLER),
            house.login(),
        ):
            with pytest.raises(LimitExceeded):
                await attempt

    in_house(database_url, work, rate="3/day")


def test_of_two_administrators_who_take_the_right_from_each_other_one_stays(database_url: str) -> None:
    changes: tuple[dict[str, object], ...] = ({"role": "viewer"}, {"disabled": True}, {})

    async def work(database: Database) -> None:
        hashed = await hash_password(PASSWORD)
        for number, change in enumerate(changes):
            async with database.transaction() as session:
                for name in ("one", "two"):
                    await Users(session).add(f"{name}{number}", hashed, "admin")

            async def take(name: str, change: dict[str, object] = change) -> None:
                async with database.transaction() as session:
                    if change:
                        await user_changes.change_user(session, name, change, BOSS)
                    else:
                        await user_changes.remove_user(session, name, BOSS)

            answers = await asyncio.gather(take(f"one{number}"), take(f"two{number}"), return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "NoneType"], answers
            async with database.transaction() as session:
                assert await Users(session).count_active_admins() == 1
                for name in ("one", "two"):  # the next round begins without them
                    user = await Users(session).by_name(f"{name}{number}")
                    if user is not None:
                        await Users(session).delete(user)

    with_database(database_url, work)
