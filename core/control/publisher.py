"""Tells HTTP workers what to serve, and hears from them when they do and when they no longer do.

One JSON object a line over a Unix socket. The control process sends `model` (who answers for a name), `status`,
`look` (something has changed in the database), `refused` (an idle model that was wanted is not loaded) and, after
the first of all of them, `synced`. A worker sends `ready`, `applied`, `released`, `want` (an idle model is
called), `used` (when models were last used, and whether they are now), `health` (the counters of its versions),
`counted` (what it has counted since it told last), `looked` (a look of this number has ended), and three that are
answered where they have an `id`: `changed` with `taken`, once all others have looked, `ask` with the `totals` of
all workers there ever were, and `logs` with what a model's hosts have written (`logged`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog

from core.control.host_log import HostLines
from core.control.totals import Report, Totals
from core.errors import PlatformError
from core.serving.version_health import Counters, Snapshot, merge

log = structlog.get_logger(__name__)

MAX_LINE_BYTES = 64 << 20
APPLY_TIMEOUT_S = 10.0
_NOTHING_YET: dict[str, Any] = {"not_ready": {}, "states": {}, "memory": {}, "expected": {}}
TAKE_TIMEOUT_S = 5.0
"""A change is answered after so long even where a worker has not taken it over: it hangs, or has no database."""


class WorkerLink:
    """One worker, as the control process sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.applied: dict[str, int] = {}
        self.held: set[str] = set()
        self.health: dict[str, Counters] = {}
        """The counters of each version there by its key, as it last sent them."""
        self.used: dict[str, tuple[float, bool]] = {}
        """When each model was last used there, in seconds of `time.monotonic()`, and whether it is now."""
        self.looked = 0
        """The number of the last look that has ended there."""
        self.name = ""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; a worker that is gone is noticed by its reader."""
        if not self.writer.is_closing():
            self.writer.write(orjson.dumps(message) + b"\n")


class Publisher:
    """Listens at `path`; `publish` each change, then wait for `applied` and `released` as needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_worker: Callable[[str], None] | None = None
        """Called with a worker's name once it knows everything."""
        self.on_changed: Callable[[], None] | None = None
        """Called when a worker says that it has changed something in the database."""
        self.on_want: Callable[[str], None] = lambda model: None
        """Called when a worker's callers wait for an idle model."""
        self.facts: Callable[[], Report] = dict
        """What only the control process knows of each model: its swaps, and its hosts' restarts by version."""
        self.logs: Callable[[str], HostLines] = lambda model: {}
        """What the hosts of a model have written, by version."""
        self._totals = Totals()
        self._ended: dict[str, Counters] = {}
        """The counters of versions in workers that have ended, by key."""
        self._models: dict[str, dict[str, Any]] = {}
        self._status: dict[str, Any] = {"k": "status", "caught_up": False, **_NOTHING_YET}
        self._workers: set[WorkerLink] = set()
        self._moved = asyncio.Condition()
        self._sequence = 0
        self._looks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        """Stop listening and let all workers go."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for worker in list(self._workers):
            worker.writer.close()

    def publish(
        self, model: str, versions: Sequence[Mapping[str, Any]], idle: Mapping[str, Any] | None = None
    ) -> int:
        """Let all workers serve these recipes for `model` from now on; none, to take it out. Its number.

        With `idle` and no recipes, callers of the model wait until it is loaded: see IdleModel.
        """
        self._sequence += 1
        message = {"k": "model", "name": model, "seq": self._sequence, "versions": list(versions), "idle": idle}
        if versions or idle:
            self._models[model] = message
        else:
            self._models.pop(model, None)
        self._forget(model)
        for worker in self._workers:
            worker.held.update(version["key"] for version in versions)
            worker.send(message)
        return self._sequence

    def refuse(self, model: str, error: PlatformError) -> None:
        """Tell all workers what to answer those who wait for this model."""
        message = {"k": "refused", "name": model, "code": error.code, "m": error.message, "r": error.retry_after_s}
        for worker in self._workers:
            worker.send(message)

    def usage(self, model: str) -> tuple[float, bool]:
        """When a model was last used in any worker, and whether it is now, as they last told."""
        told = [worker.used[model] for worker in self._workers if model in worker.used]
        return max((at for at, _ in told), default=0.0), any(busy for _, busy in told)

    def tell_status(self, *, caught_up: bool, **status_of_models: Mapping[str, Any]) -> None:
        """Keep workers able to say what is ready: the reconciler's `not_ready`, `states` and `expected`."""
        status = {"k": "status", "caught_up": caught_up, **status_of_models}
        if status != self._status:
            self._status = status
            for worker in self._workers:
                worker.send(status)

    async def applied(self, model: str, sequence: int) -> bool:
        """Wait until every worker serves what was published; false when one does not in time."""
        return await self._wait(lambda: all(w.applied.get(model, 0) >= sequence for w in self._workers))

    def counts(self, model: str) -> list[Snapshot]:
        """The counters of a model's versions in each worker, those that have ended among them."""
        versions = self._models.get(model, {}).get("versions", ())
        told = [
            {str(one["version"]): worker.health[one["key"]] for one in versions if one["key"] in worker.health}
            for worker in self._workers
        ]
        ended = {str(one["version"]): self._ended[one["key"]] for one in versions if one["key"] in self._ended}
        return [*told, ended]

    def totals(self, model: str | None) -> Report:
        """What all workers have counted, with what only this process knows; of one model, or of all."""
        facts = self.facts()
        totals = self._totals.of(model)
        names = (totals.keys() | facts.keys()) if model is None else {model}
        return {
            name: {**totals.get(name, {}), **facts.get(name, {}), "health": merge(self.counts(name))}
            for name in names
        }

    def behind(self, model: str) -> list[str]:
        """The workers that do not serve yet what was published last."""
        last = self._models.get(model, {"seq": self._sequence})["seq"]
        return sorted(worker.name for worker in self._workers if worker.applied.get(model, 0) < last)

    async def released(self, key: str, timeout_s: float) -> bool:
        """Wait until no worker uses a version any more; false when the time is up first."""
        return await self._wait(lambda: all(key not in w.held for w in self._workers), timeout_s)

    async def _wait(self, done: Callable[[], bool], timeout_s: float = APPLY_TIMEOUT_S) -> bool:
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(done)
        except TimeoutError:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = WorkerLink(writer)
        for message in self._models.values():
            worker.held.update(version["key"] for version in message["versions"])
            worker.send(message)
        worker.send(self._status)
        worker.send({"k": "synced"})
        worker.send({"k": "look", "n": self._looks})  # what it read at its start may be from before a change
        self._workers.add(worker)
        try:
            while line := await reader.readline():
                await self._heard(worker, orjson.loads(line))
        except (OSError, ValueError) as error:
            log.warning("worker.link_lost", worker=worker.name, error=repr(error))
        finally:
            self._workers.discard(worker)
            self._keep_health(worker)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            async with self._moved:
                self._moved.notify_all()

    async def _heard(self, worker: WorkerLink, message: Mapping[str, Any]) -> None:
        kind = message["k"]
        if kind == "applied":
            worker.applied[message["name"]] = message["seq"]
        elif kind == "released":
            worker.held.discard(message["key"])
        elif kind == "ready":
            worker.name = message["worker"]
            if self.on_worker is not None:
                self.on_worker(worker.name)
        elif kind == "want":
            self.on_want(message["name"])
            return
        elif kind == "used":
            worker.used.update({name: (at, busy) for name, (at, busy) in message["models"].items()})
            return
        elif kind == "changed":
            self.tell_changed(worker)
            if "id" in message:
                self._confirm_soon(worker, message["id"])
        elif kind == "looked":
            worker.looked = max(worker.looked, message["n"])
        elif kind == "health":
            worker.health.update(message["versions"])
            return
        elif kind == "counted":
            self._totals.add(message["models"], self._keys(message["models"]), time.time())
            return
        elif kind == "ask":
            worker.send({"k": "totals", "id": message["id"], "models": self.totals(message["model"])})
            return
        elif kind == "logs":
            worker.send({"k": "logged", "id": message["id"], "versions": self.logs(message["model"])})
            return
        async with self._moved:
            self._moved.notify_all()

    def tell_changed(self, source: WorkerLink | None = None) -> None:
        """Not only the poll tells of a change: everybody looks at once, but who has told of it."""
        self._looks += 1
        for worker in self._workers:
            if worker is not source:
                worker.send({"k": "look", "n": self._looks})
        if self.on_changed is not None:
            self.on_changed()

    def _confirm_soon(self, source: WorkerLink, id_: int) -> None:
        task = asyncio.create_task(self._confirm(source, id_, self._looks), name="confirm a change")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _confirm(self, source: WorkerLink, id_: int, look: int) -> None:
        """Tell who has changed something that all the others have taken it over, or that the time is up."""

        def behind() -> list[str]:
            return [one.name for one in self._workers if one is not source and one.looked < look]

        if not await self._wait(lambda: not behind(), TAKE_TIMEOUT_S):
            log.warning("change.not_everywhere", workers=sorted(behind()))
        source.send({"k": "taken", "id": id_})

    def _keys(self, models: Iterable[str]) -> dict[str, set[str]]:
        """The keys of what each of these models serves."""
        return {
            model: {version["key"] for version in self._models.get(model, {}).get("versions", ())}
            for model in models
        }

    def _forget(self, model: str) -> None:
        """Drop what was counted for loads that nobody serves any more."""
        self._totals.keep(model, self._keys([model])[model])
        served = {version["key"] for message in self._models.values() for version in message["versions"]}
        for worker in self._workers:
            worker.used = {name: used for name, used in worker.used.items() if name in self._models}
            worker.health = {key: counters for key, counters in worker.health.items() if key in served}
        self._ended = {key: ended for key, ended in self._ended.items() if key in served}

    def _keep_health(self, worker: WorkerLink) -> None:
        """What a worker that has ended counted for what is still served goes on counting."""
        served = {version["key"] for message in self._models.values() for version in message["versions"]}
        for key in worker.health.keys() & served:
            before = self._ended.get(key)
            counters = worker.health[key]
            self._ended[key] = counters if before is None else merge([{key: before}, {key: counters}])[key]
