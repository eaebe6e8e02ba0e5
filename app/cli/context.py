"""What all commands share: settings from the global flags, a ready database, errors as exit codes.

Exit codes: 0 done, 1 refused (the message says why), 2 wrong use or settings, 3 and 4 a server that cannot start,
130 interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import typer

from core.errors import PlatformError, Unavailable
from core.logs import set_up_logs
from core.setting_sources import load_settings
from core.settings import InvalidSettings, LogSettings, Settings

T = TypeVar("T")


@dataclass(slots=True)
class Flags:
    """The flags given before a command, nested as in the settings file."""

    config: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)


def settings_of(context: typer.Context) -> Settings:
    """All settings; ends the program with code 2 and one line when one cannot be used."""
    flags: Flags = context.obj
    try:
        return load_settings(flags.config, flags.values)
    except InvalidSettings as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


def run(
    work: Callable[[], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a command's coroutine; a PlatformError becomes one line and code 1."""
    set_up_logs(LogSettings(level="warning"), prod=False)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(work())
    except PlatformError as error:
        reason = _reason_of(error)
        typer.echo(f"Error: {error.message}{f' ({reason})' if reason else ''}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        # Mostly a folder that is somebody else's, or a disk without room.
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"Error: {place}{error.strerror or error}.", err=True)
        raise typer.Exit(1) from error
    except InvalidSettings as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(130) from error


def _reason_of(error: PlatformError) -> str | None:
    """Why the database does not answer: whoever types commands has to mend it. Callers over HTTP are not told."""
    if error.code != Unavailable.code:
        return None
    from core.database.failures import reason_of

    return reason_of(error)


def sqlite_file(settings: Settings) -> Path | None:
    """The file of an embedded database; None for a server's."""
    from core.database.urls import driver_url, sqlite_path

    return sqlite_path(driver_url(settings.database_url))


@asynccontextmanager
async def ready_database(settings: Settings) -> AsyncIterator[Any]:
    """A database in the code's own shape; an embedded one is migrated, a served one must have been."""
    from core.database.session import Database

    path = sqlite_file(settings)
    new = path is not None and not path.exists()
    await ensure_migrated(settings)
    if new:  # it may be that another folder was meant
        typer.echo(f"A new database was made: {path}", err=True)
    database = Database(
        settings.database_url, pool_size=settings.database.pool_size, timeout_s=settings.database.timeout_s
    )
    try:
        yield database
    finally:
        await database.close()


async def ensure_migrated(settings: Settings) -> None:
    """Migrate SQLite where needed; for PostgreSQL, which others may share, ask for `run.py migrate`."""
    from core.database import migration
    from core.errors import Conflict

    url = settings.database_url
    if await migration.is_current(url):
        return
    if not url.startswith("sqlite"):
        raise Conflict("The database is not at this release's revision; run `python run.py migrate` first.")
    await migration.upgrade(url)
