"""Second factors: an authenticator app that is enrolled, asked, replaced by recovery codes, and taken away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from core.access.sealing import Sealer, Unreadable
from core.access.sessions import Principal
from core.access.totp import (
    accepted_step,
    hash_recovery_code,
    new_recovery_codes,
    new_secret,
    otpauth_uri,
    plain_code,
)
from core.database.repositories import Sessions, Users
from core.database.session import Database
from core.database.tables import User, utc_now
from core.errors import Conflict, NotFound, Unauthenticated, Unavailable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the authenticator app is given, once; never logged."""

    secret: str
    otpauth_uri: str


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """Whether a user has one."""

    since: datetime | None
    recovery_codes_left: int


class SecondFactors:
    """Codes after RFC 6238. Whoever calls counts the attempts: see core.access.sign_in."""

    def __init__(self, database: Database, sealer: Sealer, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._sealer = sealer
        self._now_s = now_s

    async def of(self, principal: Principal) -> SecondFactor:
        """What this user has."""
        async with self._database.session() as session:
            users = Users(session)
            user = _found(await users.get(principal.user_id))
            return SecondFactor(user.totp_since, await users.count_recovery_codes(user.id))

    async def begin(self, principal: Principal) -> Enrolment:
        """A new secret, which is asked for only once `confirm` has seen a code of it. Raises Conflict."""
        secret = new_secret()
        async with self._database.transaction() as session:
            user = _found(await Users(session).get(principal.user_id))
            _refuse_second(user)
            user.totp_sealed = self._sealer.seal(secret, _purpose(user))
        return Enrolment(secret, otpauth_uri(secret, user.name))

    async def confirm(self, principal: Principal, code: str) -> list[str]:
        """From now on it is asked for; answers the recovery codes, shown this one time. Ends other sessions.

        Raises Conflict where nothing was begun, Unauthenticated for a wrong code.
        """
        codes = new_recovery_codes()
        async with self._database.transaction() as session:
            users = Users(session)
            user = _found(await users.get(principal.user_id))
            _refuse_second(user)
            if user.totp_sealed is None:
                raise Conflict("Begin with POST auth/totp.")
            step = accepted_step(self._secret(user), plain_code(code), self._now_s(), user.totp_last_step)
            if step is None:
                raise _wrong()
            user.totp_since, user.totp_last_step = utc_now(), step
            await users.set_recovery_codes(user.id, map(hash_recovery_code, codes))
            await Sessions(session).revoke_all_for(user.id, keep=principal.session_id)
        return codes

    async def check(self, user_id: int, code: str) -> str:
        """Let a code in, once; answers `app` or `recovery code`. Raises Unauthenticated."""
        plain = plain_code(code)
        async with self._database.transaction() as session:
            users = Users(session)
            user = _found(await users.get(user_id))
            if user.totp_since is None:
                raise _wrong()
            if plain.isdecimal():
                step = accepted_step(self._secret(user), plain, self._now_s(), user.totp_last_step)
                if step is not None and await users.take_step(user_id, step):
                    return "app"
            elif await users.take_recovery_code(user_id, hash_recovery_code(plain)):
                return "recovery code"
        raise _wrong()

    async def renew_recovery_codes(self, principal: Principal) -> list[str]:
        """New ones in the place of those that are left. Raises Conflict without a second factor."""
        codes = new_recovery_codes()
        async with self._database.transaction() as session:
            users = Users(session)
            user = _found(await users.get(principal.user_id))
            if user.totp_since is None:
                raise Conflict("There is no second factor; begin with POST auth/totp.")
            await users.set_recovery_codes(user.id, map(hash_recovery_code, codes))
        return codes

    async def drop(self, principal: Principal) -> None:
        """Ask for no code any more. Raises Conflict where none is asked for."""
        async with self._database.transaction() as session:
            users = Users(session)
            if not await users.drop_second_factor(_found(await users.get(principal.user_id))):
                raise Conflict("There is no second factor.")

    def _secret(self, user: User) -> str:
        try:
            return self._sealer.unseal(user.totp_sealed or b"", _purpose(user))
        except Unreadable as error:
            log.error("second_factor.unreadable", user=user.name)
            message = "The second factor cannot be read here; an administrator can reset it."
            raise Unavailable(message) from error


def _purpose(user: User) -> str:
    return f"totp:{user.id}"


def _found(user: User | None) -> User:
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _refuse_second(user: User) -> None:
    if user.totp_since is not None:
        raise Conflict("There is a second factor already; remove it first.")


def _wrong() -> Unauthenticated:
    return Unauthenticated("The code is wrong, or was used already; wait for the next.")
