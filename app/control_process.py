"""The control process of `--workers N`: owns the reconciler, the hosts, the validations and the workers.

Workers share one listening socket. SIGHUP reads the settings again and replaces them one after the other; SIGTERM
lets them drain, then takes down what is served.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import structlog

from app.bounds import engine_extras, media_limits, memory_budget, sequence_limits
from app.ending import INTERRUPTED, MARGIN_S, end_now, end_within
from app.lifespan import (
    make_store,
    media_threads,
    open_database,
    private_directory,
    run_in_background,
)
from app.nodes import join_nodes, listen
from app.supervisor import Supervisor
from core.access.limits import SharedLimits
from core.control.changes import Changes
from core.control.loader import Loader
from core.control.nodes import node_name
from core.control.optimisations import OptimisationRuns
from core.control.publisher import Publisher
from core.control.publishing import publish_swaps
from core.control.reconciler import Reconciler
from core.control.reminders import keep_reminding
from core.control.totals import Report
from core.control.validations import Validations
from core.serving.catalogue import Catalogue
from core.settings import Settings

log = structlog.get_logger(__name__)

STATUS_EVERY_S = 0.1


async def supervise(settings: Settings, listener: socket.socket, read_settings: Callable[[], Settings]) -> None:
    """Serve with several workers on a bound socket until SIGTERM or SIGINT."""
    _listen(listener)
    async with AsyncExitStack() as stack:
        publisher = await _start_control(settings, stack)
        limits = SharedLimits(settings.access.limit_slots)
        stack.callback(limits.close)
        supervisor = Supervisor(settings, listener, publisher, limits)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, supervisor, settings, number)
        loop.add_signal_handler(signal.SIGHUP, supervisor.reload_soon, read_settings)
        log.info("server.started", workers=settings.server.workers)
        await supervisor.run()
    for number in (signal.SIGTERM, signal.SIGINT):  # asked for once more, it must not look like a crash
        signal.signal(number, signal.SIG_IGN)


def _stop(supervisor: Supervisor, settings: Settings, number: int) -> None:
    """Begin a stop, which has an end; a second SIGINT is that end."""
    if not supervisor.stopping.is_set():
        end_within(settings.server.drain_s + MARGIN_S, asyncio.get_running_loop())
        supervisor.stopping.set()
    elif number == signal.SIGINT:
        end_now(INTERRUPTED)


async def _start_control(settings: Settings, stack: AsyncExitStack) -> Publisher:
    """Start all that is not HTTP; answers what tells the workers about it."""
    database = await open_database(settings, stack)
    store = make_store(settings)
    run_dir = private_directory(stack)
    catalogue = Catalogue()
    publisher = Publisher(run_dir / "control.sock")
    await publisher.start()
    threads, limits = media_threads(settings, stack), media_limits(settings)
    extras = engine_extras(settings)
    loader = Loader(
        database,
        store,
        threads,
        run_dir,
        limits=limits,
        always_hosted=True,
        extras=extras,
        sequences=sequence_limits(settings),
    )
    published = publish_swaps(catalogue, publisher)
    node = await asyncio.to_thread(node_name, settings)
    reconciler = Reconciler(
        database,
        catalogue,
        loader,
        node=node,
        drain_s=settings.server.drain_s,
        published=published,
        counts=publisher.counts,
        usage=partial(_usage, catalogue, publisher),
        memory_budget_bytes=memory_budget(settings),
    )
    publisher.on_want = reconciler.want
    loader.on_host_change = reconciler.wake
    publisher.logs = loader.logs.of
    reconciler.on_desired = partial(_tell_status, reconciler, publisher)
    publisher.facts = partial(_facts, catalogue, reconciler)
    stack.push_async_callback(reconciler.close)
    stack.push_async_callback(publisher.close)
    validations = Validations(database, store, settings.validation, trust_plans=settings.engines.trust_plans)
    optimisations = OptimisationRuns(database, store, settings)
    optimisations.on_applied = reconciler.wake
    callbacks = {"deployments": reconciler.wake, "models": validations.wake, "optimisations": optimisations.wake}
    changes = Changes(database, callbacks, poll_s=settings.database.poll_s)
    publisher.on_changed = changes.wake
    jobs = {
        "reconciler": reconciler.run(),
        "validations": validations.run(),
        "optimisations": optimisations.run(),
        "reminders": keep_reminding(database, settings.access.expiry_reminder_days),
        "changes": changes.run(),
        "status": _keep_telling(reconciler, publisher),
        **await join_nodes(settings, database, node, stack),
        **listen(settings, publisher.tell_changed),
    }
    run_in_background(jobs, stack)
    stack.callback(database.hurry)
    return publisher


def _facts(catalogue: Catalogue, reconciler: Reconciler) -> Report:
    """What workers cannot count: see Publisher."""
    restarts = reconciler.restarts()
    return {
        name: {
            "swaps": catalogue.swaps[name],
            "restarts": {str(version): count for version, count in restarts.get(name, {}).items()},
        }
        for name in catalogue.swaps.keys() | restarts.keys()
    }


def _usage(catalogue: Catalogue, publisher: Publisher, model: str) -> tuple[float, bool]:
    """When a model was last used in any process, or else loaded; and whether it is in use."""
    (loaded_at, _), (used_at, busy) = catalogue.usage(model), publisher.usage(model)
    return max(loaded_at, used_at), busy


def _tell_status(reconciler: Reconciler, publisher: Publisher) -> None:
    publisher.tell_status(
        caught_up=reconciler.caught_up.is_set(),
        not_ready=reconciler.not_ready(),
        states=reconciler.states(),
        memory=reconciler.memory(),
        expected=reconciler.expected(),
    )


async def _keep_telling(reconciler: Reconciler, publisher: Publisher) -> None:
    while True:
        _tell_status(reconciler, publisher)
        await asyncio.sleep(STATUS_EVERY_S)


def _listen(listener: socket.socket) -> None:
    listener.listen(2048)
    listener.setblocking(False)
    listener.set_inheritable(True)
