"""`model derived`: a version's converted forms, with or without a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of


def derived(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[int | None, typer.Option(min=1, help="Which version; the newest if left out.")] = None,
    rebuild: Annotated[int | None, typer.Option(min=1, help="Make the one with this id anew.")] = None,
    remove: Annotated[int | None, typer.Option(min=1, help="Remove the one with this id.")] = None,
) -> None:
    """List a version's converted forms: id, conversion, bytes, when and by whom it was made, SHA-256."""
    settings = settings_of(context)

    async def work() -> None:
        from app.lifespan import make_store
        from core.control.actor import COMMAND_LINE
        from core.control.deploying import find_model
        from core.control.derived_forms import DerivedForms

        async with ready_database(settings) as database:
            async with database.session() as session:
                number = version or (await find_model(session, name)).next_version - 1
            forms = DerivedForms(database, make_store(settings), settings)
            if remove is not None:
                await forms.remove(name, number, remove, COMMAND_LINE)
            if rebuild is not None:
                await forms.rebuild(name, number, rebuild, COMMAND_LINE)
            for row in await forms.list(name, number):
                cells = (row.id, row.conversion, row.size_bytes, f"{row.made_at:%Y-%m-%d %H:%M}", row.made_by)
                typer.echo("\t".join(map(str, (*cells, row.sha256))))

    run(work)
