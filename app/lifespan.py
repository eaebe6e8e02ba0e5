"""The composition root: builds everything in order, and takes it down in the opposite one.

A stop goes: refuse new work, let requests end, stop the background tasks, drain and close what is served, write
what is still only in memory, close the database.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from limits import RateLimitItem

from app.ending import end_soon
from app.state import LifespanState, Platform
from app.tallies import take_counted
from core.access.keys import load_or_create_key
from core.access.limits import RateLimiter
from core.access.rates import parse_rates
from core.access.sessions import SessionService
from core.access.tokens import TokenIndex
from core.control.changes import Changes, OnChange
from core.control.control import Control
from core.control.follower import ControlLost, Follower
from core.control.imports import Imports
from core.control.live_samples import LiveSamples
from core.control.loader import Loader
from core.control.memory import node_bytes
from core.control.optimisations import OptimisationRuns
from core.control.reconciler import Reconciler
from core.control.samples import SampleBook
from core.control.uploads import Uploads
from core.control.validations import Validations
from core.database.session import Database
from core.errors import PlatformError
from core.logs import set_up_logs
from core.serving.catalogue import Catalogue
from core.settings import InvalidSettings, Settings, budget_bytes
from core.store.artifacts import ArtifactStore
from core.store.importer import Importer
from core.store.sources.cache import ModelsCache
from core.store.sources.fetcher import Fetcher
from core.tasks.base import MediaLimits
from core.tasks.registry import task_class

log = structlog.get_logger(__name__)

INCOMING_STALE_S = 24 * 3600.0
LAST_USED_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of several HTTP workers stands: its name, and the control process's socket."""

    name: str
    control: Path


@asynccontextmanager
async def lifespan(
    settings: Settings, place: Place | None = None, read_settings: Callable[[], Settings] | None = None
) -> AsyncIterator[LifespanState]:
    """Build the platform for one server process, run its background tasks, and take it all down.

    With `place` it is a worker, which follows a control process; without, it decides for itself.
    """
    async with AsyncExitStack() as stack:
        stack.callback(end_soon)
        database = await open_database(settings, stack)
        store = make_store(settings)
        threads = media_threads(settings, stack)
        catalogue = Catalogue()
        validations = Validations(database, store, settings.validation)
        optimisations = OptimisationRuns(database, store, settings)
        control: Reconciler | Follower
        if place is None:
            loader = Loader(
                database,
                store,
                threads,
                private_directory(stack),
                limits=media_limits(settings),
                extras=engine_extras(settings),
            )
            control = Reconciler(
                database,
                catalogue,
                loader,
                drain_s=settings.server.drain_s,
                memory_budget_bytes=memory_budget(settings),
            )
            catalogue.on_want = control.want
            loader.on_host_change = control.wake
            optimisations.on_applied = control.wake
            jobs = {
                "reconciler": control.run(),
                "validations": validations.run(),
                "optimisations": optimisations.run(),
            }
        else:
            control = Follower(
                place.control,
                place.name,
                catalogue,
                threads,
                media_limits(settings),
                drain_s=settings.server.drain_s,
            )
            jobs = {"follower": _follow(control), "report": control.report()}
        stack.push_async_callback(control.close)
        platform = await _platform(
            settings, stack, database, store, catalogue, validations, optimisations, control
        )
        changes = _changes(platform)
        await platform.tokens.refresh()
        jobs["last use of tokens"] = _write_last_used(platform)
        jobs["changes"] = changes.run()
        jobs["live samples"] = platform.live_samples.run()
        run_in_background(jobs, stack)
        if isinstance(control, Follower):
            control.take_counted = partial(take_counted, platform)
            control.on_look = changes.wake
            await control.synced.wait()  # nobody is answered before what is in service is served here too
        if read_settings is not None:
            reload = partial(_reload, platform, read_settings)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        calm_collector()
        log.info("server.started", node=control.node)
        yield {"platform": platform}
        platform.stopping = True
        log.info("server.stopping", node=control.node)


def _reload(platform: Platform, read_settings: Callable[[], Settings]) -> None:
    """Take over what a running process can: caps, defaults and logs. Addresses and places need a restart."""
    try:
        platform.settings = read_settings()
    except InvalidSettings as error:
        log.error("settings.refused", reason=str(error))
        return
    set_up_logs(platform.settings.log, prod=platform.settings.server.prod)
    log.info("server.reloaded")


async def open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    """The database of these settings."""
    database = Database(
        settings.database_url, pool_size=settings.database.pool_size, timeout_s=settings.database.timeout_s
    )
    stack.push_async_callback(database.close)
    return database


def media_threads(settings: Settings, stack: AsyncExitStack) -> ThreadPoolExecutor:
    """The threads that decode and pre-process."""
    threads = ThreadPoolExecutor(settings.inference.threads or len(os.sched_getaffinity(0)), "media")
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    return threads


def calm_collector() -> None:
    """Let the garbage collector skip what lives as long as the process.

    A full collection walks every object of every library, some 50 ms during which nothing is answered; what the
    start has made is never garbage, so it is set aside, and full collections come a tenth as often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 100)


def media_limits(settings: Settings) -> MediaLimits:
    """What tasks hold their callers' media to."""
    return MediaLimits(max_pixels=settings.inference.max_pixels)


def engine_extras(settings: Settings) -> dict[str, dict[str, Any]]:
    """What engines are told besides, by their names."""
    plans = {"cache_dir": str(settings.plans_dir), "trust_plans": settings.engines.trust_plans}
    return {"tensorrt": plans}


def memory_budget(settings: Settings) -> int:
    """Bytes of host memory that models may take together; 0 where that is not limited."""
    return budget_bytes(settings.inference.memory_budget, node_bytes())


def private_directory(stack: AsyncExitStack) -> Path:
    """A directory of this process alone, for sockets; gone at the end."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulvinar-", ignore_cleanup_errors=True)))


def run_in_background(jobs: Mapping[str, Coroutine[Any, Any, None]], stack: AsyncExitStack) -> None:
    """Run named tasks until the stack is left; one that ends by itself is an error, not a silence."""
    tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
    for task in tasks:
        task.add_done_callback(_report_death)
    stack.push_async_callback(_stop_tasks, tasks)


async def _platform(
    settings: Settings,
    stack: AsyncExitStack,
    database: Database,
    store: ArtifactStore,
    catalogue: Catalogue,
    validations: Validations,
    optimisations: OptimisationRuns,
    control: Control,
) -> Platform:
    key = await asyncio.to_thread(load_or_create_key, settings.keys_dir, "jwt.key")
    rates = parse_rates([settings.access.token_rate]) if settings.access.token_rate else ()
    tokens = (
        WorkerTokens(database, rates, control) if isinstance(control, Follower) else TokenIndex(database, rates)
    )
    stack.push_async_callback(_flush_last_used, tokens)
    await store.sweep_incoming(INCOMING_STALE_S)
    samples = SampleBook(database, store, settings)
    uploads = Uploads(database, store, Importer(store, settings.store, check_task))
    imports = Imports(database, uploads, make_fetcher(settings, store))
    stack.push_async_callback(imports.close)
    return Platform(
        settings=settings,
        database=database,
        sessions=SessionService(database, key, settings.access),
        tokens=tokens,
        limiter=RateLimiter(),
        store=store,
        uploads=uploads,
        imports=imports,
        samples=samples,
        live_samples=LiveSamples(database, catalogue, samples, queue_size=settings.samples.live_queue),
        validations=validations,
        optimisations=optimisations,
        catalogue=catalogue,
        reconciler=control,
    )


def make_store(settings: Settings) -> ArtifactStore:
    """The artifact store of these settings."""
    return ArtifactStore(
        settings.artifacts_dir,
        max_bytes=settings.store.max_upload_bytes,
        min_free_bytes=settings.store.min_free_bytes,
    )


def make_fetcher(settings: Settings, store: ArtifactStore) -> Fetcher:
    """What fetches models from hubs and package indexes, by these settings."""
    cache = ModelsCache(
        settings.models_cache_dir,
        max_bytes=settings.sources.cache_bytes,
        min_free_bytes=settings.store.min_free_bytes,
    )
    return Fetcher(settings.sources, cache, store, max_bytes=settings.store.max_upload_bytes)


def check_task(task: str, config: Mapping[str, Any]) -> None:
    """Let a manifest's task section be checked by its task."""
    task_class(task).check(config)


def _changes(platform: Platform) -> Changes:
    callbacks: dict[str, OnChange] = {
        "tokens": partial(TokenIndex.refresh, platform.tokens),
        "deployments": partial(_deployments_changed, platform),
        "models": platform.validations.wake,
        "optimisations": platform.optimisations.wake,
    }
    return Changes(platform.database, callbacks, poll_s=platform.settings.database.poll_s)


async def _deployments_changed(platform: Platform) -> None:
    if not isinstance(platform.reconciler, Follower):  # who sees a change is not who made it
        platform.reconciler.wake()
    await platform.live_samples.refresh()


class WorkerTokens(TokenIndex):
    """The tokens as one of several workers has them: what is changed by this one, the others are told at once."""

    def __init__(self, database: Database, rates: tuple[RateLimitItem, ...], follower: Follower) -> None:
        super().__init__(database, rates)
        self._follower = follower

    async def refresh(self) -> int:
        """See TokenIndex; called after a change."""
        self._follower.wake()
        return await super().refresh()


async def _follow(follower: Follower) -> None:
    try:
        await follower.run()
    except (ControlLost, OSError):
        log.error("control.lost", node=follower.node)
        os.kill(os.getpid(), signal.SIGTERM)  # without the control process, nobody keeps the hosts
        await asyncio.Event().wait()


def _report_death(task: asyncio.Task[None]) -> None:
    """A background task that ends by itself is an error, not a silence."""
    if not task.cancelled():
        log.error("background.died", task=task.get_name(), error=repr(task.exception()))


async def _write_last_used(platform: Platform) -> None:
    while True:
        await asyncio.sleep(LAST_USED_EVERY_S)
        await _flush_last_used(platform.tokens)


async def _flush_last_used(tokens: TokenIndex) -> None:
    try:
        await tokens.flush_last_used()
    except PlatformError as error:
        log.warning("tokens.last_used_postponed", reason=error.message)


async def _stop_tasks(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
