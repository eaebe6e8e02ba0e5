"""`model optimise`: search for the best way to run a version, with or without a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.context import ready_database, run, settings_of

if TYPE_CHECKING:
    from core.database.session import Database
    from core.database.tables import Optimisation
    from core.settings import Settings

Objective = Literal["latency", "throughput", "memory"]
_PATIENCE_S = 2.0
"""For so long a running server is given to take the search up before this process does it itself."""


class Precision(StrEnum):
    """What can be asked for; an enumeration, for the option may be repeated."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


def optimise(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[int | None, typer.Option(help="Which version; the newest valid one if left out.")] = None,
    objective: Annotated[Objective, typer.Option(help="What should be best.")] = "latency",
    max_accuracy_loss: Annotated[float, typer.Option(min=0, max=1, help="How much may be lost.")] = 0.01,
    budget_s: Annotated[float, typer.Option(min=5, help="Seconds to search.")] = 180.0,
    engine: Annotated[list[str] | None, typer.Option(help="Only this engine; may be repeated.")] = None,
    precision: Annotated[list[Precision] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    apply: Annotated[bool, typer.Option(help="Let a deployment with `engine: auto` follow it.")] = True,
) -> None:
    """Measure engines, precisions and settings, and recommend the best that still answers right."""
    settings = settings_of(context)
    wanted = {
        "objective": objective,
        "max_accuracy_loss": max_accuracy_loss,
        "budget_s": budget_s,
        "engines": engine,
        "precisions": [one.value for one in precision] if precision else None,
        "apply": apply,
    }

    async def work() -> None:
        async with ready_database(settings) as database:
            optimisation_id = await _begin(database, name, version, wanted)
            try:
                await _run_or_follow(database, settings, optimisation_id)
            except asyncio.CancelledError:
                await asyncio.shield(_cancel(database, optimisation_id))
                raise
            row = await _get(database, optimisation_id)
        _show(row)
        if row.status != "done":
            raise typer.Exit(1)

    run(work)


async def _begin(database: Database, name: str, number: int | None, wanted: dict[str, Any]) -> int:
    from core.control.actor import COMMAND_LINE
    from core.control.deploying import find_model
    from core.control.optimising import begin
    from core.database.repositories.versions import Versions
    from core.engines.registry import engine_class
    from core.errors import NotFound

    for engine in wanted["engines"] or ():
        engine_class(engine)
    async with database.transaction() as session:
        model = await find_model(session, name)
        versions = await Versions(session).list(model.id)
        found = next(
            (one for one in versions if (one.status == "valid" if number is None else one.version == number)), None
        )
        if found is None:
            raise NotFound(
                f"The model {name} has no {'valid version' if number is None else f'version {number}'}."
            )
        return await begin(session, found, name, wanted, COMMAND_LINE)


async def _run_or_follow(database: Database, settings: Settings, optimisation_id: int) -> None:
    """Let a running server do it, which alone can measure without being disturbed by itself; else do it here."""
    from app.lifespan import make_store
    from core.control.optimisations import OptimisationRuns

    told = _Told()
    waited_s = 0.0
    while (row := await _get(database, optimisation_id)).status in ("queued", "running"):
        told.tell(row.progress, row.trials)
        if row.status == "queued" and waited_s >= _PATIENCE_S and not await _is_another_running(database):
            runs = OptimisationRuns(database, make_store(settings), settings)
            ended = await runs.run_one(
                optimisation_id, lambda progress, trials: told.tell(_as_json(progress), trials)
            )
            if ended != "taken":
                return
        await asyncio.sleep(0.25)
        waited_s += 0.25
    told.tell(row.progress, row.trials)


async def _is_another_running(database: Database) -> bool:
    from core.database.repositories.optimisations import Optimisations

    async with database.session() as session:
        return await Optimisations(session).any_running()


def _as_json(progress: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(progress)


async def _get(database: Database, optimisation_id: int) -> Optimisation:
    from core.database.repositories.optimisations import Optimisations
    from core.errors import NotFound

    async with database.session() as session:
        row = await Optimisations(session).get(optimisation_id)
    if row is None:
        raise NotFound("The version has been deleted.")
    return row


async def _cancel(database: Database, optimisation_id: int) -> None:
    from core.database.repositories.optimisations import Optimisations

    async with database.transaction() as session:
        row = await Optimisations(session).get(optimisation_id)
        if row is not None:
            await Optimisations(session).request_cancel(row)


class _Told:
    """What has been printed already."""

    def __init__(self) -> None:
        self._phase = ""
        self._trials = 0

    def tell(self, progress: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> None:
        """Print what is new."""
        for trial in trials[self._trials :]:
            typer.echo(f"  {row_text(trial)}")
        self._trials = max(self._trials, len(trials))
        phase = str(progress.get("phase", ""))
        if phase and phase != self._phase:
            self._phase = phase
            typer.echo(f"{phase} …", err=True)


def row_text(trial: Mapping[str, Any]) -> str:
    """One trial as a line."""
    figures = trial["figures"]
    if figures is None:
        return f"{trial['number']:>2}  {trial['label']}: {trial['status']}. {trial['reason']}"
    speedup = f", {trial['speedup']:.2f}x" if trial["speedup"] is not None else ""
    loss = f", loss {trial['loss']:.2%}" if trial["loss"] is not None else ""
    reason = f". {trial['reason']}" if trial["reason"] else ""
    return (
        f"{trial['number']:>2}  {trial['label']}: {figures['p50_ms']:.2f} ms (p99 {figures['p99_ms']:.2f}), "
        f"{figures['throughput_per_s']:,.0f}/s, {figures['memory_bytes'] / 1e6:.0f} MB{speedup}{loss}: "
        f"{trial['status']}{reason}"
    )


def _show(row: Optimisation) -> None:
    if row.recommendation is None:
        typer.echo(f"The search {row.status}. {row.reason}".strip())
        return
    number = row.recommendation["trial"]
    typer.echo(f"Recommended: trial {number}, {row.recommendation['gain']:.2f} times the reference.")
    if any(trial["number"] == number and trial.get("reference") for trial in row.trials):
        typer.echo("  That is the model as it was uploaded: there is nothing to apply.")
    for reason in (*row.recommendation["reasons"], *row.recommendation["samples"].get("bounded", ())):
        typer.echo(f"  {reason}")
