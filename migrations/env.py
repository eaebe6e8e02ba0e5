"""Alembic's environment. The connection, with its transaction, comes from `core.database.migration`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context

from core.database.tables import Base
from core.database.tables.base import UtcDateTime


def render_item(kind: str, item: Any, _autogenerate_context: Any) -> str | bool:
    """Write our own column types as what they are in the database, so that old migrations need no code of ours."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run() -> None:
    connection = context.config.attributes.get("connection")
    if not isinstance(connection, sa.Connection):
        raise RuntimeError("migrations are run with `python run.py migrate`")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_item=render_item,
        # SQLite cannot alter a table in place: it is copied.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


run()
