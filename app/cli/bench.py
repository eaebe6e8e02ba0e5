"""`bench`: how fast a model is here, through the serving core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.context import ready_database, run, settings_of
from core.settings import Settings

if TYPE_CHECKING:
    from core.database.session import Database
    from core.serving.deployment import Deployment
    from core.serving.request import InferenceRequest

MakeRequest = Callable[[], "InferenceRequest"]


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="Which version; the newest valid one if left out.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Media to send; generated tensors if left out.", exists=True)
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds for each line.")] = 3.0,
    concurrency: Annotated[str, typer.Option(help="Callers at once, a line each.")] = "1,4,16",
) -> None:
    """Measure a model in this process, without a server: calls a second, and latency."""
    settings = settings_of(context)
    levels = _levels(concurrency)
    media = file.read_bytes() if file is not None else None

    async def work() -> None:
        async with ready_database(settings) as database, AsyncExitStack() as stack:
            deployment = await _load(settings, database, stack, name, version)
            make = _request_maker(deployment, media)
            typer.echo(f"{name} version {deployment.version}, {seconds:g} s a line")
            typer.echo(f"{'callers':>8} {'calls/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'failed':>7}")
            for level in levels:
                typer.echo(await _measure(deployment.infer, make, level, seconds))

    run(work)


def _levels(text: str) -> list[int]:
    try:
        levels = [int(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1 or max(levels) > 1024:
        raise typer.BadParameter("give numbers from 1 to 1024, as 1,4,16", param_hint="--concurrency")
    return levels


async def _load(
    settings: Settings, database: Database, stack: AsyncExitStack, name: str, version: int | None
) -> Deployment:
    from app.lifespan import engine_extras, make_store, media_limits, media_threads, private_directory
    from core.control.deploying import find_model
    from core.control.desired import DesiredDeployment, TrafficShare
    from core.control.loader import Loader
    from core.database.repositories.versions import Versions
    from core.errors import NotFound

    async with database.session() as session:
        model = await find_model(session, name)
        valid = [row.version for row in await Versions(session).list(model.id) if row.status == "valid"]
    wanted = version or (valid[0] if valid else None)
    if wanted is None:
        raise NotFound(f"The model {name} has no valid version.")
    loader = Loader(
        database,
        make_store(settings),
        media_threads(settings, stack),
        private_directory(stack),
        limits=media_limits(settings),
        extras=engine_extras(settings),
    )
    desired = DesiredDeployment(model.id, name, 1, True, (TrafficShare(wanted),), queue_size=4096)
    deployment = await loader.load(desired, wanted, lambda state: None)
    stack.push_async_callback(deployment.close)
    return deployment


def _request_maker(deployment: Deployment, media: bytes | None) -> MakeRequest:
    from core.errors import Unprocessable
    from core.serving.request import InferenceRequest
    from core.serving.warm_up import warm_up_inputs
    from core.tasks.base import Payload

    if media is not None:
        return lambda: InferenceRequest(payloads=[Payload(media)])
    inputs = warm_up_inputs(deployment.signature)
    if inputs is None:
        raise Unprocessable("This model has dynamic inputs that cannot be made up; give --file.")
    return lambda: InferenceRequest(inputs=inputs, raw=True)


async def _measure(
    infer: Callable[[InferenceRequest], Awaitable[object]], make: MakeRequest, callers: int, seconds: float
) -> str:
    from core.errors import PlatformError

    took_ms: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal failed
        while (began := time.perf_counter()) < end:
            try:
                await infer(make())
            except PlatformError:
                failed += 1
                await asyncio.sleep(0)
            else:
                took_ms.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    elapsed = time.perf_counter() - began
    p50, p99 = _percentile(took_ms, 0.5), _percentile(took_ms, 0.99)
    return f"{callers:>8} {len(took_ms) / elapsed:>10.1f} {p50:>9.2f} {p99:>9.2f} {failed:>7}"


def _percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")
