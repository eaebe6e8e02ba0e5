"""Database URLs: from the one an administrator writes to the one the driver needs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from core.settings import InvalidSettings

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def driver_url(url: str) -> URL:
    """Turn `sqlite:///path` or `postgresql://…` into the URL of the asynchronous driver. Raises InvalidSettings.

    PostgreSQL's usual `sslmode` is understood.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidSettings("The setting database.url is not a URL.") from None
    driver = _DRIVERS.get(parsed.drivername.partition("+")[0])
    if driver is None:
        raise InvalidSettings("The setting database.url must begin with sqlite:/// or postgresql://.")
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise InvalidSettings("The setting database.url must name a file, as sqlite:///data/pulvinar.db.")
    query = dict(parsed.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    if not driver.startswith("sqlite"):
        _check_options(query)
    return parsed.set(drivername=driver, query=query)


def _check_options(query: Mapping[str, object]) -> None:
    import asyncpg

    ssl = query.get("ssl", "prefer")
    if ssl not in _SSL_MODES:
        raise InvalidSettings(f"The sslmode of database.url must be one of {', '.join(_SSL_MODES)}.")
    known = {"prepared_statement_cache_size", *inspect.signature(asyncpg.connect).parameters}
    for name in query:
        if name not in known:
            raise InvalidSettings(f"The option {name} of database.url does not exist.")


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite URL; None for a server's."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None
