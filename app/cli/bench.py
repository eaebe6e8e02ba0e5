"""`bench`: how fast a model is here, and what each layer between a caller and its engine costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.context import ready_database, run, settings_of
from core.settings import Settings

if TYPE_CHECKING:
    from app.bench.measure import Plan
    from app.bench.report import Report
    from app.bench.setting_up import Wanted

_LAYERS = ("engine", "core", "http")
_MOST_CALLS = 5_000_000


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Which version; the newest valid one if left out.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="By which engine; as deployed if left out.")] = None,
    layer: Annotated[str, typer.Option(help="What to measure, of engine, core, http.")] = ",".join(_LAYERS),
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "--file",
            help="Media or a .json body to send; may be given several times.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds for each line.")] = 3.0,
    warm_up: Annotated[float, typer.Option(min=0, max=60, help="Seconds before each line, not counted.")] = 0.5,
    concurrency: Annotated[str, typer.Option(help="Callers at once, a line each.")] = "1,4,16",
    rate: Annotated[
        str, typer.Option(help="Calls a second of the open loop: `50,100`, `auto`, or `none`.")
    ] = "auto",
    url: Annotated[str | None, typer.Option(help="A server that runs; without, one is started.")] = None,
    token: Annotated[str | None, typer.Option(help="An access token for it.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with plots here.")] = None,
) -> None:
    """Measure a model through the engine alone, the serving core, and HTTP."""
    settings = settings_of(context)
    levels = [int(level) for level in _numbers(concurrency, "--concurrency", 1, 1024, whole=True)]
    rates = None if rate == "auto" else [] if rate == "none" else _numbers(rate, "--rate", 0.01, 100_000)
    if max(rates or [0]) * seconds > _MOST_CALLS:
        raise typer.BadParameter(f"no line may have more than {_MOST_CALLS:,} calls", param_hint="--rate")
    layers = _layers(layer)
    server = _server(url, token, layers)
    _check_targets(json_file, html_file)

    from app.bench.calls import read_file
    from app.bench.measure import Plan
    from app.bench.report import Report
    from app.bench.setting_up import Wanted

    report = Report()
    plan = Plan(seconds, warm_up, levels, rates)

    async def work() -> None:
        calls = [read_file(path) for path in file or []]
        await _measure(settings, Wanted(name, version, engine, layers, calls, server), plan, report)

    try:
        run(work, loop_factory=_event_loop)
    finally:
        if report.points:
            _publish(report, json_file, html_file)


def _event_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # as the server's

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _measure(settings: Settings, wanted: Wanted, plan: Plan, report: Report) -> None:
    from app.bench.machine import describe_machine
    from app.bench.measure import measure
    from app.bench.setting_up import open_layers
    from app.lifespan import calm_collector

    report.machine = describe_machine()
    report.about = {"seconds": plan.seconds, "warm_up_s": plan.warm_up_s, "seed": plan.seed}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(ready_database(settings))
        layers = await open_layers(wanted, settings, database, stack, report, _say)
        calm_collector()
        await measure(plan, layers, report, _say)


def _say(text: str) -> None:
    typer.echo(f"… {text}", err=True)


def _publish(report: Report, json_file: Path | None, html_file: Path | None) -> None:
    import orjson

    from app.bench.page import page
    from app.bench.table import table

    typer.echo(table(report))
    written = {
        json_file: orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2),
        html_file: page(report).encode(),
    }
    for path, content in written.items():
        if path is not None:
            path.write_bytes(content)
            typer.echo(f"… written to {path}", err=True)


def _numbers(text: str, option: str, least: float, most: float, *, whole: bool = False) -> list[float]:
    try:
        numbers = [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(least <= number <= most for number in numbers):
        raise typer.BadParameter(f"give numbers from {least:g} to {most:g}, as 1,4,16", param_hint=option)
    return list(dict.fromkeys(numbers))


def _layers(text: str) -> Sequence[str]:
    asked = {part.strip() for part in text.split(",")}
    if not asked <= set(_LAYERS):
        raise typer.BadParameter("give some of engine, core, http, as engine,core", param_hint="--layer")
    return [layer for layer in _LAYERS if layer in asked]


def _server(url: str | None, token: str | None, layers: Sequence[str]) -> tuple[str, str] | None:
    if url is None and token is None:
        return None
    if url is None or token is None:
        raise typer.BadParameter("--url and --token go together", param_hint="--url" if url is None else "--token")
    if "http" not in layers:
        raise typer.BadParameter("a server is called by the layer http alone", param_hint="--url")
    return url, token


def _check_targets(*files: Path | None) -> None:
    """Before minutes are spent: what is found must have somewhere to go."""
    for path in files:
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise typer.BadParameter(f"a file cannot be written at {path}", param_hint="--json and --html")
