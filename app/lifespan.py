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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from app.access import open_access
from app.bounds import engine_extras, media_limits, memory_budget, sequence_limits
from app.external.node_calls import call_counted
from app.flushing import keep_flushing, learn_budgets, write_all
from app.nodes import join_nodes, listen
from app.observation import keep_history
from app.state import LifespanState, Platform, Spans
from app.tallies import take_counted
from core.access.ip_rules import IpRules
from core.access.limits import RateLimiter, Share
from core.access.others import nobody
from core.access.rates import parse_rates
from core.access.redis_limits import RedisLimits
from core.access.spending import budgeted
from core.access.tenants import Tenancy
from core.access.tokens import TokenIndex
from core.control.changes import Changes, OnChange
from core.control.control import Control
from core.control.default_targets import Defaults
from core.control.derived_forms import DerivedForms
from core.control.follower import ControlLost, Follower
from core.control.host_log import HostLines
from core.control.imports import Imports
from core.control.live_samples import LiveSamples
from core.control.loader import Loader
from core.control.nodes import node_name
from core.control.optimisations import OptimisationRuns
from core.control.reconciler import Reconciler
from core.control.reminders import keep_reminding
from core.control.samples import SampleBook
from core.control.served_pipelines import ServedPipelines
from core.control.uploads import Uploads
from core.control.validations import Validations
from core.database.session import Database
from core.errors import PlatformError
from core.logs import set_up_logs
from core.metrics import Counts
from core.serving.catalogue import Catalogue
from core.serving.result_cache import ResultStore
from core.settings import InvalidSettings, Settings
from core.store.artifacts import ArtifactStore
from core.store.importer import Importer
from core.store.sources.cache import ModelsCache
from core.store.sources.fetcher import Fetcher
from core.tasks.registry import task_class

log = structlog.get_logger(__name__)

INCOMING_STALE_S = 24 * 3600.0
AGAIN_S = 4.0
"""After so long, who was cancelled and still runs is cancelled once more."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of several HTTP workers stands: its name, the control process's socket, its share in limits."""

    name: str
    control: Path
    limits: Share


@asynccontextmanager
async def lifespan(
    settings: Settings,
    place: Place | None = None,
    read_settings: Callable[[], Settings] | None = None,
    spans: Spans | None = None,
) -> AsyncIterator[LifespanState]:
    """Build the platform for one server process, run its background tasks, and take it all down.

    With `place` it is a worker, which follows a control process; without, it decides for itself. `spans` sends
    traces, and is closed last.
    """
    async with AsyncExitStack() as stack:
        if spans is not None:
            stack.push_async_callback(asyncio.to_thread, spans.close)
        database = await open_database(settings, stack)
        store = make_store(settings)
        stack.callback(store.close)
        node = await asyncio.to_thread(node_name, settings)
        threads = media_threads(settings, stack)
        catalogue = Catalogue()
        validations = Validations(database, store, settings.validation, trust_plans=settings.engines.trust_plans)
        results = ResultStore(settings.inference.cache_bytes) if settings.inference.cache_bytes else None
        optimisations = OptimisationRuns(database, store, settings)
        control: Reconciler | Follower
        ask_logs: Callable[[str], Awaitable[HostLines]]
        if place is None:
            loader = Loader(
                database,
                store,
                threads,
                private_directory(stack),
                limits=media_limits(settings),
                extras=engine_extras(settings),
                results=results,
                sequences=sequence_limits(settings),
            )
            control = Reconciler(
                database,
                catalogue,
                loader,
                node=node,
                drain_s=settings.server.drain_s,
                memory_budget_bytes=memory_budget(settings),
            )
            catalogue.on_want = control.want
            loader.on_host_change = control.wake
            ask_logs = loader.logs.ask
            optimisations.on_applied = control.wake
            jobs = {
                "reconciler": control.run(),
                "validations": validations.run(),
                "optimisations": optimisations.run(),
                "reminders": keep_reminding(database, settings.access.expiry_reminder_days),
                **await join_nodes(settings, database, node, stack),
            }
        else:
            control = Follower(
                place.control,
                place.name,
                catalogue,
                threads,
                media_limits(settings),
                drain_s=settings.server.drain_s,
                results=results,
            )
            ask_logs = control.host_logs
            jobs = {"follower": _follow(control), "report": control.report()}
        stack.push_async_callback(control.close)
        platform = await _platform(
            settings, stack, database, store, catalogue, threads, validations, optimisations, control, place
        )
        platform.node = node
        platform.results = results
        platform.spans = spans
        platform.host_logs = ask_logs
        stack.push_async_callback(write_all, platform)
        platform.pipelines.call = partial(call_counted, platform)
        changes = _changes(platform)
        await platform.tenants.refresh()
        await platform.tokens.refresh()
        await learn_budgets(platform, budgeted(platform.tokens.records()))
        await platform.ip_rules.refresh()
        await platform.defaults.refresh()
        await platform.pipelines.refresh()
        jobs["flushing"] = keep_flushing(platform)
        jobs["history"] = keep_history(platform)
        jobs["changes"] = changes.run()
        if place is None:
            jobs.update(listen(settings, changes.wake))
        jobs["live samples"] = platform.live_samples.run()
        run_in_background(jobs, stack)
        if isinstance(control, Follower):
            control.take_counted = partial(take_counted, platform)
            control.on_look = changes.look
            await control.synced.wait()  # nobody is answered before what is in service is served here too
        if read_settings is not None:
            reload = partial(_reload, platform, read_settings)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        calm_collector()
        log.info("server.started", node=control.node)
        yield {"platform": platform}
        platform.leaving = platform.stopping = True
        database.hurry()
        log.info("server.stopping", node=control.node)


def _reload(platform: Platform, read_settings: Callable[[], Settings]) -> None:
    """Take over what a running process can: caps, defaults and logs. Addresses and places need a restart."""
    try:
        platform.settings = read_settings()
    except InvalidSettings as error:
        log.error("settings.refused", reason=str(error))
        return
    platform.access.take_over(platform.settings)
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
    threads: ThreadPoolExecutor,
    validations: Validations,
    optimisations: OptimisationRuns,
    control: Control,
    place: Place | None,
) -> Platform:
    rates = parse_rates([settings.access.token_rate]) if settings.access.token_rate else ()
    tell_others = control.tell_others if isinstance(control, Follower) else nobody
    tenants = Tenancy(database, tell_others)
    tokens = TokenIndex(database, rates, tenants, tell_others)
    samples = SampleBook(database, store, settings)
    uploads = Uploads(
        database, store, Importer(store, settings.store, check_task, trust_plans=settings.engines.trust_plans)
    )
    await _clear_store(store, uploads)
    imports = Imports(database, uploads, make_fetcher(settings, store))
    stack.push_async_callback(imports.close)
    counts = Counts()
    limiter = RateLimiter(
        settings.access.limit_slots,
        share=place.limits if place else None,
        counts=counts,
        fail_open=settings.access.limits_on_failure == "open",
        redis=redis_limits(settings, stack),
    )
    return Platform(
        settings=settings,
        database=database,
        access=await open_access(settings, database, limiter),
        tenants=tenants,
        tokens=tokens,
        counts=counts,
        ip_rules=IpRules(database, tell_others),
        limiter=limiter,
        store=store,
        uploads=uploads,
        imports=imports,
        samples=samples,
        live_samples=LiveSamples(database, catalogue, samples, queue_size=settings.samples.live_queue),
        validations=validations,
        optimisations=optimisations,
        derived=DerivedForms(database, store, settings),
        defaults=Defaults(database, catalogue),
        pipelines=ServedPipelines(database, catalogue, threads, media_limits(settings)),
        catalogue=catalogue,
        reconciler=control,
    )


async def _clear_store(store: ArtifactStore, uploads: Uploads) -> None:
    """Clear away what a killed process has left in the store; what cannot be now is at the next start."""
    try:
        cleared = await store.sweep_incoming(INCOMING_STALE_S) + await uploads.clear_after_the_dead()
    except (OSError, PlatformError) as error:
        log.warning("store.not_cleared", reason=str(error))
        return
    if cleared:
        log.info("store.cleared", things=cleared)


def redis_limits(settings: Settings, stack: AsyncExitStack) -> RedisLimits | None:
    """What counts limits over machines, where that is set up. Raises InvalidSettings."""
    if settings.redis.url is None:
        return None
    limits = RedisLimits(settings.redis)
    stack.push_async_callback(limits.close)
    return limits


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
        "tenants": platform.tenants.refresh,
        "tokens": platform.tokens.refresh,
        "access_rules": platform.ip_rules.refresh,
        "deployments": partial(_deployments_changed, platform),
        "models": partial(_models_changed, platform),
        "pipelines": partial(_pipelines_changed, platform),
        "optimisations": platform.optimisations.wake,
        "defaults": platform.defaults.refresh,
    }
    return Changes(platform.database, callbacks, poll_s=platform.settings.database.poll_s)


async def _models_changed(platform: Platform) -> None:
    platform.validations.wake()
    await _pipelines_changed(platform)


async def _pipelines_changed(platform: Platform) -> None:
    await platform.tenants.refresh()  # a name that is given anew begins without shares
    await platform.pipelines.refresh()  # one that waits for a model may find it now


async def _deployments_changed(platform: Platform) -> None:
    if not isinstance(platform.reconciler, Follower):  # who sees a change is not who made it
        platform.reconciler.wake()
    await platform.live_samples.refresh()


async def _follow(follower: Follower) -> None:
    try:
        await follower.run()
    except Exception as error:  # whatever it is, who no longer follows must not go on serving what was
        unexpected = None if isinstance(error, ControlLost | OSError) else error
        log.error("control.lost", node=follower.node, exc_info=unexpected)
        os.kill(os.getpid(), signal.SIGTERM)  # without the control process, nobody keeps the hosts
        await asyncio.Event().wait()


def _report_death(task: asyncio.Task[None]) -> None:
    """A background task that ends by itself is an error, not a silence."""
    if not task.cancelled():
        log.error("background.died", task=task.get_name(), error=repr(task.exception()))


async def _stop_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these and wait for their ends; again those that have not ended, for a cancellation can be lost."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)
        if waiting:
            log.warning("background.not_stopped", tasks=sorted(task.get_name() for task in waiting))
