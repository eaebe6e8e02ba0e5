"""`model samples`: add, list and remove samples of a model's inputs, with or without a running server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.context import ready_database, run, settings_of

if TYPE_CHECKING:
    from core.store.artifacts import ArtifactStore
    from core.store.uploads import Received

app = typer.Typer(no_args_is_help=True, help="Samples of a model's inputs, to calibrate and judge with.")
Name = Annotated[str, typer.Argument(help="The model's name.")]
_CHUNK_BYTES = 1 << 20


@app.command("add")
def add(
    context: typer.Context,
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="Inputs, or zips of them.", exists=True, dir_okay=False)],
    label: Annotated[str | None, typer.Option(help="The right answer, for all that are no zips.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A labels.csv or labels.jsonl.", exists=True)] = None,
) -> None:
    """Add samples: images, texts or arrays, as applications would send them."""
    settings = settings_of(context)

    async def work() -> None:
        from app.lifespan import make_store
        from core.control.actor import COMMAND_LINE
        from core.control.deploying import find_model
        from core.control.samples import SampleBook

        text = await asyncio.to_thread(labels.read_text, "utf-8") if labels else None
        async with ready_database(settings) as database:
            store = make_store(settings)
            book = SampleBook(database, store, settings)
            async with database.session() as session:
                model = await find_model(session, name)
            added = known = 0
            for file in files:
                its_label = None if file.suffix == ".zip" else label
                received = await _receive(store, file)
                done = await book.add(model, received, file.name, its_label, text, COMMAND_LINE)
                added, known = added + done.added, known + done.known
            typer.echo(f"{added} samples added to {name}; {known} were there already.")

    run(work)


@app.command("list")
def list_samples(context: typer.Context, name: Name) -> None:
    """List a model's samples: id, kind, media type, bytes, label and name."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.deploying import find_model
        from core.database.repositories.samples import Samples

        async with ready_database(settings) as database, database.session() as session:
            model = await find_model(session, name)
            for row in await Samples(session).list(model.id):
                cells = (row.id, row.kind, row.media_type, row.size_bytes, row.label or "-", row.name)
                typer.echo("\t".join(map(str, cells)))

    run(work)


@app.command("remove")
def remove(
    context: typer.Context,
    name: Name,
    kind: Annotated[Literal["uploaded", "live"] | None, typer.Option(help="Only those of this kind.")] = None,
) -> None:
    """Remove a model's samples."""
    settings = settings_of(context)

    async def work() -> None:
        from app.lifespan import make_store
        from core.control.actor import COMMAND_LINE
        from core.control.deploying import find_model
        from core.control.samples import SampleBook

        async with ready_database(settings) as database:
            async with database.session() as session:
                model = await find_model(session, name)
            removed = await SampleBook(database, make_store(settings), settings).remove(
                model, COMMAND_LINE, kind=kind
            )
            typer.echo(f"{removed} samples of {name} removed.")

    run(work)


async def _receive(store: ArtifactStore, file: Path) -> Received:
    size = (await asyncio.to_thread(file.stat)).st_size
    async with store.receive(size) as upload:
        with file.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
                await upload.write(chunk)
        return await upload.finish()
