"""Opens the layers that are asked for, and closes all of them at the end."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from app.bench.calls import Call, describe, make_call
from app.bench.http_client import http_call, reach
from app.bench.layers import Arrays, CoreLayer, EngineLayer, HttpLayer, Layer
from app.bench.measure import Say
from app.bench.private_server import private_server
from app.bench.report import Report
from app.bench.subject import Subject, find_subject
from app.bounds import engine_extras, media_limits, sequence_limits
from app.external.call import read_call
from app.lifespan import make_store, media_threads, private_directory
from core.control.loader import Loader
from core.database.session import Database
from core.engines.base import Engine, EngineOptions
from core.engines.cores import cores_available
from core.engines.registry import engine_class
from core.errors import Unprocessable
from core.serving.request import InferenceRequest
from core.serving.slot_policy import SlotBounds, widths
from core.serving.target import Target
from core.settings import Settings
from core.signature import Signature
from core.tasks.base import Task
from core.tasks.registry import task_class


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. `calls` empty means made-up ones; `server` is a URL and a token."""

    model: str
    version: int | None
    engine: str | None
    layers: Sequence[str]
    calls: Sequence[Call]
    server: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Bench:
    """A model on the bench: its engine loaded, its task bound. It looks like a target to who reads bodies."""

    subject: Subject
    engine: Engine | None
    """None where it may only be loaded in a process of its own."""
    signature: Signature
    task: Task
    bounds: SlotBounds | None

    @property
    def modality(self) -> str:
        """What media the task takes."""
        return self.task.modality


async def open_layers(
    wanted: Wanted, settings: Settings, database: Database, stack: AsyncExitStack, report: Report, say: Say
) -> list[Layer]:
    """The layers, the lowest first; also says in the report what is measured. Raises PlatformError."""
    if wanted.server is not None:
        await reach(wanted.server[0])  # before anything is loaded
    if not _needs_model(wanted):
        assert wanted.server is not None
        report.about |= {"model": wanted.model, "version": wanted.version, "input": describe(wanted.calls)}
        return [_http(wanted.server, wanted, wanted.calls, report, stack)]
    store = make_store(settings)
    subject = await find_subject(database, store, settings.inference, wanted.model, wanted.version, wanted.engine)
    say("loading the model")
    bench = await _on_the_bench(subject, settings, stack)
    calls = wanted.calls or [
        await asyncio.to_thread(make_call, subject.manifest, bench.task, bench.signature, bench.engine)
    ]
    requests = [await asyncio.to_thread(_read, bench, call, settings) for call in calls]
    _tell(report, bench, calls)
    layers: list[Layer] = []
    if bench.engine is None:
        if "engine" in wanted.layers:
            say(f"the engine {subject.choice.engine} only runs in a process of its own: that layer is left out")
    elif "engine" in wanted.layers:
        items = [await asyncio.to_thread(_prepared, bench.task, request) for request in requests]
        layers.append(EngineLayer(bench.engine, items, bench.bounds))
    else:
        await asyncio.to_thread(bench.engine.close)
    if "core" in wanted.layers:
        layers.append(await _core(subject, requests, settings, database, stack))
    if "http" in wanted.layers:
        if wanted.server is None:
            say("starting a server")
        server = wanted.server or await _own_server(settings, subject, stack)
        layers.append(_http(server, wanted, calls, report, stack))
    if not layers:
        raise Unprocessable(f"The engine {subject.choice.engine} cannot be measured alone; add the layer core.")
    return layers


def _needs_model(wanted: Wanted) -> bool:
    """Whether the model must be in this database: a server elsewhere, and own inputs, need nothing of it."""
    return wanted.layers != ["http"] or wanted.server is None or not wanted.calls


async def _on_the_bench(subject: Subject, settings: Settings, stack: AsyncExitStack) -> Bench:
    desired, choice = subject.desired, subject.choice
    cores = cores_available()
    most = desired.max_instances or max(desired.instances, cores)
    bounds = SlotBounds(desired.instances, most, cores) if subject.device == "cpu" else None
    engine = None
    if engine_class(choice.engine).always_hosted:
        signature = Signature.from_json(subject.version.signature or {"inputs": (), "outputs": ()})
    else:
        engine = engine_class(choice.engine)()
        stack.callback(engine.close)
        within = widths(bounds) if bounds is not None and not choice.threads else ()
        options = EngineOptions(subject.device, choice.threads, within, _extra(settings, subject))
        signature = await asyncio.to_thread(engine.load, choice.artifact, options)
    make = task_class(subject.manifest.task)
    task = await asyncio.to_thread(
        make, subject.manifest.task_config(), signature, subject.root, media_limits(settings)
    )
    return Bench(subject, engine, signature, task, bounds if engine is not None and engine.concurrent else None)


def _extra(settings: Settings, subject: Subject) -> dict[str, Any]:
    """As the loader tells it."""
    choice = subject.choice
    told = {} if choice.converted else subject.manifest.engine_extra()
    batch = {"max_batch": subject.desired.max_batch} if choice.engine == "tensorrt" else {}
    return {**engine_extras(settings).get(choice.engine, {}), **batch, **told, **choice.extra}


def _read(bench: Bench, call: Call, settings: Settings) -> InferenceRequest:
    media_type = call.media_type.encode()
    return read_call(cast(Target, bench), media_type, call.body, max_items=settings.inference.max_items)


def _prepared(task: Task, request: InferenceRequest) -> Arrays:
    if request.payloads is None:
        return dict(request.inputs or {})
    return task.preprocess(request.payloads, request.parameters).inputs


async def _core(
    subject: Subject,
    requests: Sequence[InferenceRequest],
    settings: Settings,
    database: Database,
    stack: AsyncExitStack,
) -> CoreLayer:
    threads = media_threads(settings, stack)
    loader = Loader(
        database,
        make_store(settings),
        threads,
        private_directory(stack),
        limits=media_limits(settings),
        extras=engine_extras(settings),
        sequences=sequence_limits(settings),
    )
    deployment = await loader.load(subject.desired, subject.version.version, lambda state: None)
    stack.push_async_callback(deployment.close)
    return CoreLayer(deployment, requests)


async def _own_server(settings: Settings, subject: Subject, stack: AsyncExitStack) -> tuple[str, str]:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pulvinar-bench-", ignore_cleanup_errors=True))
    return await stack.enter_async_context(private_server(settings, subject, Path(folder)))


def _http(
    server: tuple[str, str], wanted: Wanted, calls: Sequence[Call], report: Report, stack: AsyncExitStack
) -> HttpLayer:
    call = http_call(*server, wanted.model, wanted.version if wanted.server else None, calls)
    given = f"{call.host}:{call.port}" if wanted.server else "a server of its own"
    report.about["server"] = given
    layer = HttpLayer(call)
    stack.callback(layer.close)
    return layer


def _tell(report: Report, bench: Bench, calls: Sequence[Call]) -> None:
    desired, choice = bench.subject.desired, bench.subject.choice
    report.about |= {
        "model": bench.subject.model.name,
        "version": bench.subject.version.version,
        "task": bench.task.name,
        "format": bench.subject.version.format,
        "engine": choice.engine,
        "engine_version": engine_class(choice.engine).info().version,
        "precision": choice.precision or None,
        "optimisation": choice.optimisation,
        "form": bench.subject.form,
        "device": bench.subject.device,
        "widths": list(widths(bench.bounds)) if bench.bounds is not None else [],
        "max_batch": desired.max_batch,
        "isolation": desired.isolation,
        "input": describe(calls),
    }
