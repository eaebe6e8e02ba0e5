"""What the database says when it cannot, in the platform's own errors.

Violated constraints are left as they are: only a repository knows what they mean.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.errors import BadRequest, PlatformError, StorageFull, Unavailable

_SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SQLITE_GONE = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PG_GONE = ("08", "28", "3D", "53", "57P")
# What asyncpg raises on a connection that was closed under it carries no SQLSTATE.
_ASYNCPG_GONE = ("InterfaceError", "InternalClientError")
_PG_BUSY = ("40001", "40P01", "55P03", "57014")


def platform_error(error: BaseException) -> PlatformError | None:
    """The error that callers should see in place of `error`, or None where it is no failure of the database's."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return _gone()
        error = error.orig or error
    if isinstance(error, sqlite3.Error):
        return _sqlite(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF)
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _postgresql(state)
    if isinstance(error, (UnicodeEncodeError, OverflowError)):
        return _unstorable()
    if isinstance(error, (OSError, TimeoutError, PoolTimeout)):
        return _busy() if isinstance(error, (TimeoutError, PoolTimeout)) else _gone()
    return _gone() if type(error).__name__ in _ASYNCPG_GONE else None


def reason_of(error: BaseException) -> str | None:
    """What lies behind an error, in the driver's words, for those who may read settings; None where unknown."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__context__ if cause.__cause__ in (None, cause) else cause.__cause__
    if len(seen) == 1:
        return None
    cause = seen[-1]
    text = getattr(cause, "strerror", None) or str(cause)
    return text.strip().partition("\n")[0].rstrip(".") or type(cause).__name__


def is_unique_violation(error: IntegrityError) -> bool:
    """Whether a unique or primary key constraint was violated, on either database."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
    return getattr(error.orig, "sqlstate", None) == "23505"


def _sqlite(code: int) -> PlatformError | None:
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("The disk that holds the database has no room.")
    if code in _SQLITE_BUSY:
        return _busy()
    return _gone() if code in _SQLITE_GONE else None


def _postgresql(state: str) -> PlatformError | None:
    if state == "53100":
        return StorageFull("The disk that holds the database has no room.")
    if state.startswith(_PG_BUSY):
        return _busy()
    if state.startswith("22"):
        return _unstorable()
    return _gone() if state.startswith(_PG_GONE) else None


def _busy() -> Unavailable:
    return Unavailable("The database is too busy to answer now; try again in a moment.", retry_after_s=1)


def _gone() -> Unavailable:
    return Unavailable("The database cannot be reached now; try again in a moment.", retry_after_s=2)


def _unstorable() -> BadRequest:
    return BadRequest("The request holds a value that the database cannot keep.")
