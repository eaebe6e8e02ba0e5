"""`model apply`: follow a search's recommendation, or go back to the uploaded form."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of


def apply(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[int | None, typer.Option(min=1, help="Which version; the newest if left out.")] = None,
    search: Annotated[
        int | None, typer.Option(min=1, help="Whose recommendation; the newest if left out.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Follow none: run the version as uploaded.")] = False,
) -> None:
    """Let deployments with `engine: auto` follow what a search recommends, or with --undo none."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.deploying import find_model
        from core.control.following import follow, unfollow

        async with ready_database(settings) as database, database.transaction() as session:
            number = version or (await find_model(session, name)).next_version - 1
            if undo:
                generation = await unfollow(session, name, number, COMMAND_LINE)
                said = f"Version {number} of {name} runs as uploaded"
            else:
                followed, generation = await follow(session, name, number, search, COMMAND_LINE)
                said = f"Version {number} of {name} follows search {followed}"
        told = (
            "; no deployment had to change."
            if generation is None
            else f"; generation {generation} of its deployment."
        )
        typer.echo(said + told)

    run(work)
