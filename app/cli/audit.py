"""`audit`: whether the log of changes is whole, and the log as a file."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.context import ready_database, run, settings_of, sqlite_file
from core.errors import NotFound
from core.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The log of changes.")


class Kind(StrEnum):
    """JSON lines, or CSV."""

    JSONL = "jsonl"
    CSV = "csv"


def _database_there(settings: Settings) -> AbstractAsyncContextManager[Any]:
    # The empty log of a new database is whole: a nightly job in the wrong folder would be content.
    path = sqlite_file(settings)
    if path is not None and not path.exists():
        raise NotFound(f"There is no database at {path}.")
    return ready_database(settings)


@app.command("verify")
def verify(context: typer.Context) -> None:
    """Walk the chain of hashes; the exit code is 1 where an entry is missing, added or changed."""
    settings = settings_of(context)

    async def work() -> bool:
        from core.database.repositories.audit import Audit

        async with _database_there(settings) as database, database.session() as session:
            report = await Audit(session).verify()
        for finding in report.findings:
            typer.echo(finding, err=True)
        if not report.findings:
            typer.echo(f"{report.count} entries, whole. The last hash is {report.last_hash}.")
        return not report.findings

    if not run(work):
        raise typer.Exit(1)


@app.command("export")
def export(
    context: typer.Context,
    kind: Annotated[Kind, typer.Option("--format", help="JSON lines, or CSV.")] = Kind.JSONL,
) -> None:
    """Write the whole log to standard output, oldest first."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.audit_export import export
        from core.database.repositories.audit import Audit

        async with _database_there(settings) as database, database.session() as session:
            async for line in export(Audit(session), kind.value):
                sys.stdout.buffer.write(line)

    run(work)
