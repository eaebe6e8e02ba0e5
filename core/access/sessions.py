"""Signing in, staying signed in, and signing out."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.access.jwt import Claims, not_signed_in, read, sign
from core.access.passwords import hash_password, verify_password
from core.access.roles import Role
from core.database.repositories import Sessions, Users
from core.database.session import Database
from core.database.tables import Session, User, utc_now
from core.errors import Unauthenticated
from core.settings import AccessSettings

_MAX_REFRESH_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Principal:
    """A signed-in user, as of this request."""

    user_id: int
    name: str
    role: Role
    session_id: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client keeps. `token` holds until `expires_at`; `refresh_token` gets the next one, once."""

    token: str
    refresh_token: str
    expires_at: datetime
    user: Principal


class SessionService:
    """Sign-in sessions. Every check asks the database, so that a session ends the moment its row says so."""

    def __init__(self, database: Database, key: bytes, access: AccessSettings) -> None:
        self._database = database
        self._key = key
        self._token_life = timedelta(minutes=access.session_minutes)
        self._refresh_life = timedelta(days=access.refresh_days)

    async def login(self, name: str, password: str, address: str = "", user_agent: str = "") -> SignedIn:
        """Sign in. Raises the same Unauthenticated, after the same time, whatever was wrong."""
        user = await self._user(name)
        matches = await verify_password(user.password_hash if user else None, password)
        if user is None or user.disabled or not matches:
            raise Unauthenticated("The user name or the password is wrong.")
        session_id, secret, now = secrets.token_hex(16), _new_secret(), utc_now()
        row = Session(
            id=session_id,
            user_id=user.id,
            refresh_hash=_hash(secret),
            expires_at=now + self._refresh_life,
            address=address[:64],
            user_agent=_printable(user_agent)[:255],
        )
        async with self._database.transaction() as session:
            sessions = Sessions(session)
            await sessions.delete_expired(now)
            await sessions.add(row)
        return self._signed_in(user, session_id, secret)

    async def refresh(self, refresh_token: str) -> SignedIn:
        """Exchange a refresh token for a new pair. Raises Unauthenticated.

        A refresh token works once. Used again, one of the two users is a thief: the session ends for both.
        """
        session_id, old = _split(refresh_token)
        secret = _new_secret()
        async with self._database.transaction() as session:
            sessions = Sessions(session)
            row = await sessions.get(session_id)
            holds = _holds(row)
            if holds and not await sessions.rotate(
                session_id, _hash(old), _hash(secret), utc_now() + self._refresh_life
            ):
                await sessions.revoke(session_id)
                holds = False
        if row is None or not holds:
            raise not_signed_in()
        return self._signed_in(row.user, session_id, secret)

    async def authenticate(self, token: str) -> Principal:
        """The user that a token speaks for, now. Raises Unauthenticated."""
        claims = read(token, self._key)
        async with self._database.session() as session:
            row = await Sessions(session).get(claims.session_id)
        if row is None or not _holds(row) or row.user_id != claims.user_id:
            raise not_signed_in()
        return _principal(row.user, row.id)

    async def logout(self, principal: Principal) -> None:
        """End the session; its tokens work no more."""
        async with self._database.transaction() as session:
            await Sessions(session).revoke(principal.session_id)

    async def change_password(self, principal: Principal, old: str, new: str) -> None:
        """Set a new password and end the user's other sessions. Raises Unauthenticated, or Unprocessable."""
        user = await self._user(principal.name)
        if not await verify_password(user.password_hash if user else None, old):
            raise Unauthenticated("The present password is wrong.")
        await self.set_password(principal.user_id, new, keep=principal.session_id)

    async def set_password(self, user_id: int, new: str, *, keep: str | None = None) -> None:
        """Set a user's password and end their sessions but `keep`. Raises Unprocessable."""
        password_hash = await hash_password(new)
        async with self._database.transaction() as session:
            user = await Users(session).get(user_id)
            if user is None:
                raise not_signed_in()
            user.password_hash = password_hash
            await Sessions(session).revoke_all_for(user_id, keep=keep)

    async def _user(self, name: str) -> User | None:
        if not name.isprintable():  # which no user's name is, and what PostgreSQL would choke on
            return None
        async with self._database.session() as session:
            return await Users(session).by_name(name)

    def _signed_in(self, user: User, session_id: str, secret: str) -> SignedIn:
        expires_at = utc_now().replace(microsecond=0) + self._token_life
        token = sign(Claims(user.id, session_id), self._key, expires_at)
        return SignedIn(token, f"{session_id}.{secret}", expires_at, _principal(user, session_id))


def _principal(user: User, session_id: str) -> Principal:
    return Principal(user_id=user.id, name=user.name, role=Role(user.role), session_id=session_id)


def _holds(row: Session | None) -> bool:
    return row is not None and row.revoked_at is None and row.expires_at > utc_now() and not row.user.disabled


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
