"""Sessions: what a signed-in user keeps, from the password on until they sign out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from core.access.jwt import Claims, kid_of, not_signed_in, read, sign
from core.access.key_ring import Keys
from core.access.passwords import check_password, hash_password, verify_password
from core.access.roles import Role
from core.database.repositories import Sessions, Users
from core.database.repositories.sessions import HoldingRow
from core.database.session import Database
from core.database.tables import Session, User, utc_now
from core.errors import PasswordChangeRequired, SecondFactorRequired, Unauthenticated, Unprocessable
from core.settings import AccessSettings

SECOND_FACTOR_LIFE: Final = timedelta(minutes=5)
"""For so long it is waited for the code after the password."""
_MAX_REFRESH_LENGTH = 128
_TOUCH_AFTER = timedelta(minutes=1)
_TOUCHES = 6
"""At least so often while a session would go idle, so that one in use never does."""


def token_life_s(access: AccessSettings) -> float:
    """For so long a token holds."""
    return access.session_minutes * 60.0


class Stage(StrEnum):
    """How far somebody has come: `open` is all the way."""

    OPEN = "open"
    SECOND_FACTOR = "second_factor"
    PASSWORD = "password"  # noqa: S105  # nosec B105  # the name of a stage


OPEN_ONLY: Final = frozenset({Stage.OPEN})
HALF: Final = frozenset({Stage.SECOND_FACTOR})
SIGNED_IN: Final = frozenset({Stage.OPEN, Stage.PASSWORD})
"""Whoever is known for sure, though they may have to change their password first."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a sign-in comes from, for the list of sessions and the audit log."""

    address: str = ""
    user_agent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Principal:
    """A signed-in user, as of this request."""

    user_id: int
    name: str
    role: Role
    session_id: str
    stage: Stage = Stage.OPEN


class Holding(NamedTuple):
    """A session that holds: whose it is, and the hash of the secret in its cookie."""

    principal: Principal
    secret_hash: bytes


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client keeps. `token` holds until `expires_at`; `refresh_token` gets the next one, once.

    Where `user.stage` is not open, the token is good for that step alone; one that waits for a second factor has
    no refresh token.
    """

    token: str
    refresh_token: str | None
    expires_at: datetime
    user: Principal
    cookie: str = ""
    """What a browser keeps in the place of both, at every stage; see SessionService.resume."""


class SessionService:
    """Sign-in sessions. Every check asks the database, so that a session ends the moment its row says so.

    Figures alone are content with what it said a moment ago: see core.access.held.
    Nothing here counts attempts: see core.access.sign_in.
    """

    def __init__(self, database: Database, keys: Keys, access: AccessSettings) -> None:
        self._database = database
        self._keys = keys
        self._token_life = timedelta(minutes=access.session_minutes)
        self._refresh_life = timedelta(days=access.refresh_days)
        self._idle_life = timedelta(minutes=access.idle_minutes)
        self._touch_after = min(_TOUCH_AFTER, self._idle_life / _TOUCHES)

    async def login(self, name: str, password: str, address: str = "", user_agent: str = "") -> SignedIn:
        """Sign in. Raises the same Unauthenticated, after the same time, whatever was wrong."""
        user = await self._user(name)
        matches = await verify_password(user.password_hash if user else None, password)
        if user is None or user.disabled or not matches:
            raise Unauthenticated("The user name or the password is wrong.")
        return await self.open(user, Caller(address, user_agent), second_factor_due=user.totp_since is not None)

    async def open(self, user: User, caller: Caller, *, second_factor_due: bool = False) -> SignedIn:
        """Begin a session of somebody who has shown who they are, but for the second factor where it is due."""
        session_id, secret = secrets.token_hex(16), _new_secret()
        now = utc_now()
        life = SECOND_FACTOR_LIFE if second_factor_due else self._refresh_life
        row = Session(
            id=session_id,
            user_id=user.id,
            refresh_hash=_hash(secret),
            expires_at=now + life,
            address=caller.address[:64],
            user_agent=_printable(caller.user_agent)[:255],
            second_factor_due=second_factor_due,
        )
        async with self._database.transaction() as session:
            sessions = Sessions(session)
            await sessions.delete_expired(now)
            await sessions.add(row)
        return await self._signed_in(user, row, secret)

    async def go_on(self, half: Principal, caller: Caller) -> SignedIn:
        """A whole session in the place of one whose second factor has come. Raises Unauthenticated."""
        async with self._database.transaction() as session:
            user = await Users(session).get(half.user_id)
            if user is None or not await Sessions(session).revoke(half.session_id):
                raise not_signed_in()
        return await self.open(user, caller)

    async def refresh(self, refresh_token: str) -> SignedIn:
        """Exchange a refresh token for a new pair. Raises Unauthenticated.

        A refresh token works once. Used again, one of the two users is a thief: the session ends for both.
        """
        session_id, old = _split(refresh_token)
        secret = _new_secret()
        async with self._database.transaction() as session:
            sessions = Sessions(session)
            row = await sessions.get(session_id)
            holds = _holds(row) and row is not None and not row.second_factor_due
            if holds and not await sessions.rotate(
                session_id, _hash(old), _hash(secret), utc_now() + self._refresh_life
            ):
                await sessions.revoke(session_id)
                holds = False
        if row is None or not holds:
            raise not_signed_in()
        return await self._signed_in(row.user, row, secret)

    async def authenticate(self, token: str, stages: Collection[Stage] = OPEN_ONLY) -> Principal:
        """The user that a token speaks for, now.

        Raises Unauthenticated, or SecondFactorRequired or PasswordChangeRequired where they have not come as far
        as one of `stages`.
        """
        key = await self._keys.find(kid_of(token))
        if key is None:
            raise not_signed_in()
        claims = read(token, key.secret)
        async with self._database.session() as session:
            row = await Sessions(session).get(claims.session_id)
        if row is None or not _holds(row) or row.user_id != claims.user_id:
            raise not_signed_in()
        principal = _principal(row.user, row)
        if principal.stage not in stages:
            raise _unfinished(principal.stage)
        return principal

    async def resume(self, cookie: str) -> Principal:
        """The user of a browser's session; `cookie` is that of its sign-in. Raises Unauthenticated.

        Unlike a refresh it replaces nothing: a browser asks for many things at once. The session ends when it is
        not used for `access.idle_minutes`. The stage is for whoever calls to look at.
        """
        session_id, secret_hash = parts_of(cookie)
        now = utc_now()
        async with self._database.session() as session:
            row = await Sessions(session).get(session_id)
        if row is None or not _holds(row) or not hmac.compare_digest(row.refresh_hash, secret_hash):
            raise not_signed_in()
        if row.last_used_at < now - self._idle_life:
            raise not_signed_in()
        if row.last_used_at < now - self._touch_after and not row.second_factor_due:
            async with self._database.transaction() as session:
                await Sessions(session).touch(session_id, now, now + self._refresh_life)
        return _principal(row.user, row)

    async def holding(self, session_ids: Collection[str]) -> dict[str, Holding]:
        """Those of them that hold, in one query; to ask is not to use them."""
        async with self._database.session() as session:
            rows = await Sessions(session).holding(session_ids, utc_now())
        return {row.id: Holding(_holder(row), row.refresh_hash) for row in rows}

    async def open_sessions(self, user_id: int) -> Sequence[Session]:
        """The sessions of a user that hold, the one used last first."""
        async with self._database.session() as session:
            return await Sessions(session).live_of(user_id, utc_now())

    async def logout(self, principal: Principal) -> None:
        """End the session; its tokens work no more."""
        async with self._database.transaction() as session:
            await Sessions(session).revoke(principal.session_id)

    async def confirm_password(self, principal: Principal, password: str) -> None:
        """Raise Unauthenticated unless this is the user's password."""
        user = await self._user(principal.name)
        if not await verify_password(user.password_hash if user else None, password):
            raise Unauthenticated("The present password is wrong.")

    async def change_password(self, principal: Principal, old: str, new: str) -> None:
        """Set a new password and end the user's other sessions. Raises Unauthenticated, or Unprocessable."""
        await self.confirm_password(principal, old)
        if new == old:
            raise Unprocessable("The new password is the present one; take another.")
        check_password(new, principal.name)
        await self.set_password(principal.user_id, new, keep=principal.session_id)

    async def set_password(self, user_id: int, new: str, *, keep: str | None = None) -> None:
        """Set a password that its user has chosen, and end their sessions but `keep`. Raises Unprocessable."""
        password_hash = await hash_password(new)
        async with self._database.transaction() as session:
            user = await Users(session).get(user_id)
            if user is None:
                raise not_signed_in()
            user.password_hash, user.must_change_password = password_hash, False
            await Sessions(session).revoke_all_for(user_id, keep=keep)

    async def _user(self, name: str) -> User | None:
        if not name.isprintable():  # which no user's name is, and what PostgreSQL would choke on
            return None
        async with self._database.session() as session:
            return await Users(session).by_name(name)

    async def _signed_in(self, user: User, row: Session, secret: str) -> SignedIn:
        principal = _principal(user, row)
        half = principal.stage is Stage.SECOND_FACTOR
        life = SECOND_FACTOR_LIFE if half else self._token_life
        expires_at = utc_now().replace(microsecond=0) + life
        key = await self._keys.current()
        token = sign(Claims(user.id, row.id), key.secret, expires_at, key.kid)
        whole = f"{row.id}.{secret}"
        return SignedIn(token, None if half else whole, expires_at, principal, whole)


def _principal(user: User, row: Session) -> Principal:
    stage = _stage(row.second_factor_due, user.must_change_password)
    return Principal(user_id=user.id, name=user.name, role=Role(user.role), session_id=row.id, stage=stage)


def _holder(row: HoldingRow) -> Principal:
    stage = _stage(row.second_factor_due, row.must_change_password)
    return Principal(user_id=row.user_id, name=row.name, role=Role(row.role), session_id=row.id, stage=stage)


def _stage(second_factor_due: bool, must_change_password: bool) -> Stage:
    if second_factor_due:
        return Stage.SECOND_FACTOR
    return Stage.PASSWORD if must_change_password else Stage.OPEN


def _unfinished(stage: Stage) -> Exception:
    if stage is Stage.SECOND_FACTOR:
        return SecondFactorRequired("Send the code of your authenticator app to auth/second-factor first.")
    if stage is Stage.PASSWORD:
        return PasswordChangeRequired("Change your password with auth/password first.")
    return not_signed_in()


def _holds(row: Session | None) -> bool:
    return row is not None and row.revoked_at is None and row.expires_at > utc_now() and not row.user.disabled


def parts_of(cookie: str) -> tuple[str, bytes]:
    """The id of a session and the hash of the secret in its cookie. Raises Unauthenticated."""
    session_id, secret = _split(cookie)
    return session_id, _hash(secret)


def _split(refresh_token: str) -> tuple[str, str]:
    session_id, dot, secret = refresh_token.partition(".")
    if len(refresh_token) > _MAX_REFRESH_LENGTH or not (dot and refresh_token.isascii() and session_id.isalnum()):
        raise not_signed_in()
    return session_id, secret


def _new_secret() -> str:
    return secrets.token_urlsafe(32)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
