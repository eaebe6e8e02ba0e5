"""What all repositories share: the session, adding with a clash made plain, and pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from sqlalchemy import Select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from core.database.failures import is_unique_violation
from core.database.tables import Base
from core.errors import BadRequest, Conflict

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

MAX_PAGE = 1000

Key = TypeVar("Key", int, str)


class Repository:
    """Every query about one noun. Lives as long as its session; commits nothing itself."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def _add(self, row: Base, clash: str) -> None:
        """Insert `row`. Raises Conflict with the sentence `clash` where something unique is taken already."""
        try:
            async with self._session.begin_nested():
                self._session.add(row)
        except IntegrityError as error:
            if is_unique_violation(error):
                raise Conflict(clash) from None
            raise

    async def _page(
        self,
        query: Select[Any],
        key: InstrumentedAttribute[Key],
        limit: int,
        cursor: str | None,
        *,
        descending: bool = False,
    ) -> tuple[list[Any], str | None]:
        """At most `limit` rows (never over 1000) in the order of `key`, and the cursor of the next page."""
        limit = min(max(limit, 1), MAX_PAGE)
        if cursor is not None:
            last = decode_cursor(cursor, key.type.python_type)
            query = query.where(key < last if descending else key > last)
        query = query.order_by(key.desc() if descending else key).limit(limit + 1)
        rows = list((await self._session.scalars(query)).all())
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], encode_cursor(getattr(rows[limit - 1], key.key))

    def _insert(self, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ON CONFLICT, in this session's dialect."""
        if self._session.get_bind().dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # loaded by now; no start on SQLite waits for it

            return postgresql.insert(table)
        return sqlite.insert(table)


def encode_cursor(key: int | str) -> str:
    """An opaque cursor: callers hand it back and read nothing from it."""
    return base64.urlsafe_b64encode(orjson.dumps([key])).decode().rstrip("=")


def decode_cursor(cursor: str, kind: type[Any]) -> Any:
    """The key in `cursor`, of the type `kind`. Raises BadRequest where it was not made by `encode_cursor`."""
    try:
        key = _only(orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))
    except (ValueError, binascii.Error):
        key = None
    # A key out of the columns' range would be an error of the database's, not an empty page.
    if type(key) is not kind or (isinstance(key, int) and not 0 <= key < 2**31) or "\0" in str(key):
        raise BadRequest("The cursor is not one that a list has answered.")
    return key


def _only(values: Sequence[Any]) -> Any:
    return values[0] if isinstance(values, list) and len(values) == 1 else None
