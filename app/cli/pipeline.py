"""`pipeline`: check, add and deploy pipelines, with or without a running server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of

app = typer.Typer(no_args_is_help=True, help="Pipelines: graphs of models and operations.")

Name = Annotated[str, typer.Argument(help="The pipeline's name.")]
File = Annotated[Path, typer.Argument(help="A graph.yaml.", exists=True, dir_okay=False)]
VersionOption = Annotated[int | None, typer.Option(min=1, help="Which version; the newest if left out.")]


@app.command("check")
def check(context: typer.Context, file: File) -> None:
    """Tell all that is wrong with a definition, each with its line; code 1 where anything is."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.pipelines import plan_for
        from core.pipelines.problems import WrongPipeline

        async with ready_database(settings) as database, database.session() as session:
            try:
                plan = await plan_for(session, await _read(file))
            except WrongPipeline as error:
                for problem in error.problems:
                    typer.echo(str(problem), err=True)
                raise typer.Exit(1) from error
        outputs = ", ".join(f"{name} ({type_})" for name, (_, type_) in plan.outputs.items())
        typer.echo(f"It takes {plan.modality} and answers {outputs}.")

    run(work)


@app.command("add")
def add(
    context: typer.Context,
    name: Name,
    file: File,
    deploy: Annotated[bool, typer.Option("--deploy", help="Deploy it at once.")] = False,
) -> None:
    """Add a pipeline, or the next version of one."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control import pipelines
        from core.control.actor import COMMAND_LINE
        from core.database.repositories.pipelines import Pipelines

        text = await _read(file)
        async with ready_database(settings) as database, database.transaction() as session:
            known = await Pipelines(session).by_name(name) is not None
            put = pipelines.add_version if known else pipelines.add_pipeline
            _, version, _ = await put(session, name, text, COMMAND_LINE)
            typer.echo(f"Version {version.version} of {name} was added.")
            if deploy:
                await pipelines.deploy(session, name, version.version, _spec(), COMMAND_LINE)
                typer.echo(f"{name} is to be served as version {version.version}.")

    run(work)


@app.command("deploy")
def deploy_command(context: typer.Context, name: Name, version: VersionOption = None) -> None:
    """Deploy a version; a running server takes it over within a second."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control import pipelines
        from core.control.actor import COMMAND_LINE

        async with ready_database(settings) as database, database.transaction() as session:
            number = version or (await pipelines.find_pipeline(session, name)).next_version - 1
            await pipelines.deploy(session, name, number, _spec(), COMMAND_LINE)
        typer.echo(f"{name} is to be served as version {number}.")

    run(work)


@app.command("undeploy")
def undeploy_command(context: typer.Context, name: Name) -> None:
    """Take a pipeline out of service; a running server answers the requests under way first."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control import pipelines
        from core.control.actor import COMMAND_LINE

        async with ready_database(settings) as database, database.transaction() as session:
            await pipelines.undeploy(session, name, COMMAND_LINE)
        typer.echo(f"{name} is to be served no more.")

    run(work)


@app.command("list")
def list_pipelines(context: typer.Context) -> None:
    """List pipelines: name, newest version, and which one is deployed."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.pipelines import Pipelines

        async with ready_database(settings) as database, database.session() as session:
            deployed = {row.pipeline_id: row.version for row in await Pipelines(session).desired()}
            cursor: str | None = None
            while True:
                rows, cursor = await Pipelines(session).page(200, cursor)
                for row in rows:
                    state = f"deployed v{deployed[row.id]}" if row.id in deployed else "not deployed"
                    typer.echo(f"{row.name}\tv{row.next_version - 1}\t{state}")
                if cursor is None:
                    break

    run(work)


@app.command("show")
def show(
    context: typer.Context,
    name: Name,
    version: VersionOption = None,
    graph: Annotated[Path | None, typer.Option(help="Write a picture (SVG) to this file.")] = None,
) -> None:
    """Print a version's definition, or draw it."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control import pipelines
        from core.pipelines.definition import parsed
        from core.pipelines.picture import draw

        async with ready_database(settings) as database, database.session() as session:
            found = await pipelines.find_version(session, await pipelines.find_pipeline(session, name), version)
        if graph is None:
            typer.echo(found.definition.rstrip("\n"))
            return
        picture = draw(parsed(found.definition), f"{name} version {found.version}")
        await asyncio.to_thread(graph.write_text, picture, "utf-8")

    run(work)


@app.command("remove")
def remove_command(context: typer.Context, name: Name) -> None:
    """Remove a pipeline with its versions; one that is deployed is refused."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control import pipelines
        from core.control.actor import COMMAND_LINE

        async with ready_database(settings) as database, database.transaction() as session:
            await pipelines.remove(session, name, COMMAND_LINE)
        typer.echo(f"{name} was removed.")

    run(work)


async def _read(file: Path) -> str:
    from core.errors import BadRequest

    try:
        return await asyncio.to_thread(file.read_text, "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("The definition must be YAML in UTF-8.") from error


def _spec() -> dict[str, int]:
    from dataclasses import asdict

    from core.pipelines.target import PipelineOptions

    return asdict(PipelineOptions())
