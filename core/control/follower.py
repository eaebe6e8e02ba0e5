"""What a worker has in the place of a reconciler: serves what the control process says.

Engines live in hosts that the control process keeps; a worker connects to them, does the tasks' work itself, and
lets go of a version when its last request has been answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog

from core.control.host_log import HostLines
from core.control.publisher import MAX_LINE_BYTES, TAKE_TIMEOUT_S
from core.control.totals import Report
from core.errors import PlatformError, Unavailable
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.host_client import HostClient, error_from
from core.serving.idle_model import IdleModel
from core.serving.result_cache import ResultStore
from core.serving.version_health import Counters
from core.signature import Signature
from core.store.manifest import manifest_from_json
from core.tasks.base import MediaLimits, Task
from core.tasks.registry import task_class

log = structlog.get_logger(__name__)

CONNECT_EVERY_S = 0.1
REPORT_EVERY_S = 0.5
TOTALS_TIMEOUT_S = 5.0
SYNC_S = 10.0
"""How long a new worker waits for hosts that are away before it serves the others."""


class ControlLost(Exception):
    """The control process is gone; a worker cannot go on without it."""


@dataclass(slots=True)
class Published:
    """What was said last of one model: its recipes by key, and all keys that are not released yet."""

    sequence: int = 0
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    idle: IdleModel | None = None
    keys: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    """Keys of those that are being closed."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Follower:
    """The worker's side of the control socket. `run` until it raises ControlLost or is cancelled."""

    def __init__(
        self,
        path: Path,
        name: str,
        catalogue: Catalogue,
        threads: ThreadPoolExecutor,
        limits: MediaLimits,
        *,
        drain_s: float,
        results: ResultStore | None = None,
    ) -> None:
        self.node = name
        self.caught_up = asyncio.Event()
        self._path = path
        self._catalogue = catalogue
        self._threads = threads
        self._limits = limits
        self._drain_s = drain_s
        self._results = results
        self._held: dict[str, Served] = {}
        self._published: dict[str, Published] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._not_ready: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._memory: dict[str, dict[str, int]] = {}
        catalogue.on_want = lambda model: self.send({"k": "want", "name": model})
        self.synced = asyncio.Event()
        """Set once everything that was in service when this worker came is served here too."""
        self.on_look: Callable[[], Awaitable[None]] | None = None
        """Called when something has changed in the database; ends once that is taken over."""
        self.take_counted: Callable[[], Report] = dict
        """Answers what this worker has counted since it was last asked."""
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._ids = itertools.count(1)

    def wake(self) -> None:
        """Something was changed in the database by this worker: all others look at once."""
        self.send({"k": "changed"})

    async def tell_others(self) -> None:
        """As `wake`, and wait until all others have taken it over, or as long as that may take."""
        if self._writer is None:  # a start: nothing has been changed here
            return
        with contextlib.suppress(TimeoutError):
            await self._answer_to({"k": "changed"}, TAKE_TIMEOUT_S + 1)

    def not_ready(self) -> dict[str, str]:
        """As the control process says, and what is served there and not here yet."""
        expected = self._catalogue.expected or ()
        late = {name: "starting in this worker" for name in expected if not self._catalogue.has(name)}
        return {**late, **self._not_ready}

    def states(self) -> dict[str, str]:
        """As the control process says."""
        return self._states

    def memory(self) -> dict[str, dict[str, int]]:
        """As the control process says."""
        return self._memory

    async def totals(self, model: str | None = None) -> Report:
        """What all workers have counted. Raises Unavailable when the control process does not answer."""
        # Shown only once it is kept there: what is shown here and then lost with this worker would go back.
        self._tell_counted()
        answer = await self._ask("ask", model, "The counts of all workers cannot be had now.")
        totals: Report = answer["models"]
        return totals

    async def host_logs(self, model: str) -> HostLines:
        """What the hosts of a model have written last, by version. Raises Unavailable."""
        answer = await self._ask("logs", model, "The logs of hosts cannot be had now.")
        versions: Mapping[str, Any] = answer["versions"]
        return {version: [(at, text, ours) for at, text, ours in lines] for version, lines in versions.items()}

    async def _ask(self, what: str, model: str | None, otherwise: str) -> Mapping[str, Any]:
        """The control process's answer about a model, or all. Raises Unavailable, with the words `otherwise`."""
        try:
            return await self._answer_to({"k": what, "model": model}, TOTALS_TIMEOUT_S)
        except TimeoutError as error:
            raise Unavailable(otherwise, retry_after_s=1) from error

    async def _answer_to(self, message: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Send what is answered; returns the answer. Raises TimeoutError."""
        id_ = next(self._ids)
        asked: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[id_] = asked
        self.send({**message, "id": id_})
        try:
            async with asyncio.timeout(timeout_s):
                return await asked
        finally:
            del self._asked[id_]

    def send(self, message: Mapping[str, Any]) -> None:
        """Tell the control process something."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def run(self) -> None:
        """Follow. Raises ControlLost."""
        reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
        while line := await reader.readline():
            message = orjson.loads(line)
            if message["k"] == "model":
                self._take_model(message["name"], message["seq"], message["versions"], message["idle"])
            elif message["k"] == "refused":
                self._catalogue.refuse(message["name"], error_from(message))
            elif message["k"] == "status":
                self._take_status(message)
            elif message["k"] == "look":
                self._spawn(self._look(message["n"]), "look")
            elif message["k"] in ("taken", "totals", "logged"):
                asked = self._asked.get(message["id"])
                if asked is not None and not asked.done():
                    asked.set_result(message)
            elif message["k"] == "synced":
                self._spawn(self._synced(), "synced")
        raise ControlLost

    async def _look(self, number: int) -> None:
        if self.on_look is not None:
            await self.on_look()
        self.send({"k": "looked", "n": number})

    async def report(self) -> None:
        """Tell the control process how versions do here and what was counted, where that has changed. Endless."""
        told: dict[str, Counters] = {}
        told_used: dict[str, tuple[float, bool]] = {}
        while True:
            now = {key: served.snapshot() for key, served in self._held.items()}
            changed = {key: counters for key, counters in now.items() if told.get(key) != counters}
            if changed:
                self.send({"k": "health", "versions": changed})
            told = now
            used = {name: self._catalogue.usage(name) for name in self._catalogue.targets()}
            changed_used = {name: one for name, one in used.items() if told_used.get(name) != one}
            if changed_used:
                self.send({"k": "used", "models": changed_used})
            told_used = used
            self._tell_counted()
            await asyncio.sleep(REPORT_EVERY_S)

    def _tell_counted(self) -> None:
        counted = self.take_counted()
        if counted:
            self.send({"k": "counted", "models": counted})

    async def close(self) -> None:
        """Let go of everything; requests have ended by now."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for served in self._held.values():
            await close_target(served)
        self._tell_counted()
        if self._writer is not None:
            self._writer.close()

    def _take_status(self, message: Mapping[str, Any]) -> None:
        self._not_ready, self._states = message["not_ready"], message["states"]
        self._memory = message["memory"]
        if message["caught_up"]:
            self._catalogue.expected = message["expected"]
            self.caught_up.set()

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"follow {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("follower.failed", task=task.get_name(), error=repr(task.exception()))

    async def _synced(self) -> None:
        """Say that all is served, once everything that came before is; what takes too long is not waited for."""
        before = self._tasks - {asyncio.current_task()}
        if before:
            await asyncio.wait(before, timeout=SYNC_S)
        self.synced.set()
        self.send({"k": "ready", "worker": self.node})

    def _take_model(
        self, name: str, sequence: int, recipes: Sequence[Mapping[str, Any]], idle: Mapping[str, Any] | None
    ) -> None:
        published = self._published.setdefault(name, Published())
        published.sequence = sequence
        published.recipes = {recipe["key"]: recipe for recipe in recipes}
        published.idle = None if idle is None else IdleModel.from_json(name, idle)
        published.keys |= published.recipes.keys()
        self._spawn(self._apply(name, sequence, published), name)

    async def _apply(self, name: str, sequence: int, published: Published) -> None:
        async with published.turn:
            shares = []
            for key, recipe in published.recipes.items():
                served = self._held.get(key) or await self._open(key, recipe, sequence, published)
                if published.sequence != sequence:
                    return  # something newer came meanwhile, and looks after all that this has opened
                assert served is not None
                shares.append(Share(served, recipe["weight"], recipe["mode"]))
            self._catalogue.swap(name, shares, published.idle)
            self.send({"k": "applied", "name": name, "seq": sequence})
        for key in published.keys - published.recipes.keys() - published.leaving:
            published.leaving.add(key)
            self._spawn(self._let_go(key, published), f"drain {name}")

    async def _open(
        self, key: str, recipe: Mapping[str, Any], sequence: int, published: Published
    ) -> Served | None:
        """Connect to the host, however long that takes: it may just be starting again. None once superseded."""
        while published.sequence == sequence:
            deployment = deployment_from(recipe, self._threads, self._limits, self._results)
            try:
                await deployment.start()
            except PlatformError:
                await asyncio.sleep(CONNECT_EVERY_S)
            else:
                self._held[key] = Served(deployment)
                return self._held[key]
        return None

    async def _let_go(self, key: str, published: Published) -> None:
        """Close a version that is published no more, once its last request is answered, and say so."""
        try:
            served = self._held.get(key)
            if served is not None:
                await served.drained(self._drain_s)
                if key in published.recipes:  # back meanwhile, as after a quick rollback
                    return
                del self._held[key]
                await close_target(served)
        finally:
            published.leaving.discard(key)
        if key not in published.recipes:
            published.keys.discard(key)
            self.send({"k": "released", "key": key})


async def close_target(served: Served) -> None:
    """Close what a worker has opened."""
    assert isinstance(served.target, Deployment)
    await served.target.close()


def deployment_from(
    recipe: Mapping[str, Any],
    threads: ThreadPoolExecutor,
    limits: MediaLimits,
    results: ResultStore | None = None,
) -> Deployment:
    """A Deployment on a host that somebody else keeps."""
    manifest = manifest_from_json(recipe["manifest"])
    root = Path(recipe["root"])

    def make_task(signature: Signature) -> Task:
        return task_class(manifest.task)(manifest.task_config(), signature, root, limits)

    options = DeploymentOptions(recipe["model"], recipe["version"], recipe["timeout_ms"], recipe["cache"])
    runner = HostClient(Path(recipe["socket"]), recipe["queue_size"])
    deployment = Deployment(options, runner, make_task, threads, results)
    deployment.recipe = dict(recipe)
    return deployment
