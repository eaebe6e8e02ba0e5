"""`keys`: those that sign sign-in tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of

app = typer.Typer(no_args_is_help=True, help="The keys that sign sign-in tokens.")


@app.command("rotate")
def rotate(
    context: typer.Context,
    activate_in: Annotated[
        float, typer.Option(min=0, max=7 * 24 * 3600, help="Seconds until it signs: time to bring it elsewhere.")
    ] = 0,
) -> None:
    """Make a new key; running servers follow at once, and tokens of the one before hold until they end."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.key_changes import rotate_keys

        async with ready_database(settings) as database, database.transaction() as session:
            made = await rotate_keys(session, settings, COMMAND_LINE, activate_in)
        typer.echo(f"Key {made.kid} signs from {_time(made.active_from_s)} on.")

    run(work)


@app.command("remove")
def remove(context: typer.Context, kid: Annotated[str, typer.Argument(help="Its id, as listed.")]) -> None:
    """Refuse all tokens that a key has signed, within a second; for one that has leaked."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.key_changes import remove_key

        async with ready_database(settings) as database, database.transaction() as session:
            await remove_key(session, settings, COMMAND_LINE, kid)
        typer.echo(f"Key {kid} is believed no more.")

    run(work)


@app.command("list")
def list_all(context: typer.Context) -> None:
    """List the keys: id, state, from when they sign, until when they are believed; never their secrets."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.key_changes import list_keys

        for facts in await list_keys(settings):
            ends = "" if facts.ends_s is None else _time(facts.ends_s)
            typer.echo(f"{facts.kid}\t{facts.state}\t{_time(facts.active_from_s)}\t{ends}")

    run(work)


def _time(epoch_s: float) -> str:
    return "the beginning" if not epoch_s else f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
