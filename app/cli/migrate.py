"""`migrate`: bring the database to this release's revision."""

from __future__ import annotations

import typer

from app.cli.context import run, settings_of


def migrate(context: typer.Context) -> None:
    """Migrate the database, under a lock; nothing happens when it is current."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database import migration

        before = await migration.current(settings.database_url)
        await migration.upgrade(settings.database_url)
        after = await migration.current(settings.database_url)
        typer.echo(f"The database is at revision {after}." if before != after else "Nothing to do.")

    run(work)
