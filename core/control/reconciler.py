"""The only one who loads and unloads: keeps what this node serves equal to what the database desires.

Woken by `wake` after every change made here, and by a poll for changes made elsewhere. One action at a time a
model; a newer desired state cancels an older one that is still loading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal

import structlog

from core.control.desired import DesiredDeployment
from core.control.drains import Drains
from core.control.forms import Forms
from core.control.model_state import ModelState
from core.control.occupancy import Occupancy
from core.control.plan import Action, Apply, next_retry, plan
from core.control.records import read_desired, write_observed
from core.control.rollout import LoadedVersion, Loads, Rollout, idle_model, park
from core.control.totals import Report
from core.control.watch import begin
from core.control.watching import Watching
from core.database.repositories.deployments import Deployments
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from core.database.tables import DeploymentStatus
from core.errors import NoRoom, NotReady, PlatformError
from core.serving.catalogue import Catalogue
from core.serving.version_health import Snapshot, merge

log = structlog.get_logger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 5.0, 300.0
UNEXPECTED = "An unexpected error stopped the load; the server's log has its trace."

Cause = Literal["start", "change", "call"]
"""Why something is loaded: the node's start, a change of what is desired (or another try), or a call."""


class Reconciler:
    """The control loop of one node. `run` until cancelled, then `close`."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        loader: Loads,
        *,
        node: str = "local",
        poll_s: float = 5.0,
        drain_s: float = 20.0,
        published: Callable[[str], Awaitable[object]] | None = None,
        counts: Callable[[str], Iterable[Snapshot]] | None = None,
        usage: Callable[[str], tuple[float, bool]] | None = None,
        memory_budget_bytes: int = 0,
    ) -> None:
        """`counts` answers a model's counters from every process that serves it; without it, this one does.

        So does `usage`: when a model was last used there, in seconds of `time.monotonic()`, and whether it is now.
        A budget of 0 is none.
        """
        self.node = node
        self._database = database
        self._catalogue = catalogue
        self._poll_s = poll_s
        self._published = published
        self.on_desired: Callable[[], None] = lambda: None
        """Called when it is known what is desired, before anything is done about it."""
        self._counts = counts or (lambda model: [catalogue.snapshot(model)])
        self._loader = loader
        self._closing = False
        self._states: dict[str, ModelState] = {}
        self._drains = Drains(drain_s, lambda: self._memory.changed(), self.wake)
        self._memory = Occupancy(
            memory_budget_bytes,
            self._states,
            lambda: self._desired,
            usage or catalogue.usage,
            loader,
            self._drains,
            self._unload_for_room,
        )
        self._rollout = Rollout(catalogue, loader, self._drains.begin)
        self._forms = Forms(database, self._states, self.counts, self.wake)
        self._watching = Watching(database, self.counts, self._drains, self.wake)
        self._before: dict[int, DeploymentStatus] = {}
        """What was observed of each model before this process began."""
        self._wake = asyncio.Event()
        self._desired: Mapping[str, DesiredDeployment] = {}
        self._revision = -1
        self.caught_up = asyncio.Event()
        """Set once the desired state has been read for the first time."""

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    def not_ready(self) -> dict[str, str]:
        """Models desired as running that do not answer, each with its state and reason; idle ones do."""
        waiting = {}
        for name, desired in self._desired.items():
            if desired.running and not self._catalogue.serving(name):
                state = self._states.get(name)
                if state is not None and state.state != "failed" and self._catalogue.is_idle(name):
                    continue
                waiting[name] = "pending" if state is None else state.sentence()
        return waiting

    def expected(self) -> dict[str, tuple[int, ...]]:
        """The versions that should answer for each model, whether or not they do yet."""
        return {name: desired.live_versions for name, desired in self._desired.items() if desired.running}

    def states(self) -> dict[str, str]:
        """The state of every model that this node knows."""
        return {name: state.state for name, state in self._states.items()}

    def memory(self) -> dict[str, dict[str, int]]:
        """By model, the bytes of host memory that each version in it takes."""
        return {
            name: {str(number): one.memory_bytes for number, one in state.loaded.versions.items()}
            for name, state in self._states.items()
            if state.loaded.versions
        }

    def want(self, model: str) -> None:
        """An idle model is called: load it, or say why not. Asking again changes nothing."""
        state, desired = self._states.get(model), self._desired.get(model)
        if state is None or desired is None or not desired.running or self._closing:
            return  # it is about to go, which is told to whoever waits
        if state.task is not None or state.generation != desired.generation:
            state.wanted = True
            self.wake()
        elif state.state == "failed" and time.monotonic() < state.retry_at:
            self._refuse(model, state)
        elif state.state in ("idle", "failed"):
            state.note("pending")
            self._begin(model, state, "load", lambda: self._apply(state, desired, "call"))

    async def totals(self, model: str | None = None) -> Report | None:
        """None: nobody else counts."""
        return None

    def restarts(self) -> dict[str, dict[int, int]]:
        """By model, how often the process of each of its versions was started again, where it was."""
        return {name: state.restarts for name, state in self._states.items() if state.restarts}

    def counts(self, model: str) -> Snapshot:
        """The counters of a model's versions in service, over all processes."""
        return merge(self._counts(model))

    async def run(self) -> None:
        """Reconcile until cancelled; what goes wrong in one round is logged and tried again in the next."""
        while True:
            self._wake.clear()
            try:
                await self._round()
                self.caught_up.set()
            except PlatformError as error:
                log.warning("reconcile.postponed", reason=error.message)
            except Exception:
                log.exception("reconcile.crashed")
            await self._sleep()

    async def close(self) -> None:
        """Cancel what is being loaded, then drain and close all that is served."""
        self._closing = True
        states = self._states.values()
        tasks = [task for state in states for task in (state.task, state.watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, state in self._states.items():
            self._drains.begin_of(name, state, self._rollout.remove(name, state.loaded))
        await self._drains.over()

    async def _round(self) -> None:
        await self._read_desired()
        self._catalogue.expected = self.expected()
        self.on_desired()
        actual = {name: state.actual() for name, state in self._states.items()}
        actions = plan(self._desired, actual, time.monotonic())
        if not self.caught_up.is_set():
            actions.sort(key=self._turn_at_start)
        for action in actions:
            self._act(action)
        try:
            await self._look_at_memory()
            await self._forms.look()
        except Exception:  # what is served is told all the same
            await self._write_observed()
            raise
        await self._write_observed()

    def _turn_at_start(self, action: Action) -> tuple[bool, bool]:
        """What is pinned comes first, and then what was in memory before."""
        desired = action.desired
        if desired is None:
            return True, True
        before = self._before.get(desired.model_id)
        return not desired.pinned, before is None or before.state == "idle"

    async def _look_at_memory(self) -> None:
        """Unload what nobody has called for too long; measure anew from time to time."""
        for model in self._memory.idle_too_long():
            self._unload(model, f"No request for {self._desired[model].idle_unload_s:g} s.")
        await self._memory.measure_again()

    async def _sleep(self) -> None:
        now = time.monotonic()
        retry_at = next_retry({name: state.actual() for name, state in self._states.items()})
        due = [moment for moment in (retry_at, self._memory.next_idle(now)) if moment is not None]
        wait_s = min([self._poll_s, *(max(0.05, moment - now) for moment in due)])
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _read_desired(self) -> None:
        """Read the desired rows, but only when the revision says that one has changed."""
        async with self._database.session() as session:
            revision = (await Revisions(session).read_all()).get("deployments", 0)
            if revision == self._revision:
                return
            if self._revision == -1:
                observed = await Deployments(session).all_observed(self.node)
                self._before = {row.model_id: row for row in observed}
            self._desired = await read_desired(session)
        self._revision = revision

    def _act(self, action: Action) -> None:
        name = action.desired.model if isinstance(action, Apply) else action.model
        state = self._states.setdefault(name, ModelState(0))
        desired = action.desired
        if desired is not None:
            if (state.origin, state.generation) != (desired.origin, desired.generation):
                state.attempts = 0
            state.model_id, state.origin, state.generation = desired.model_id, desired.origin, desired.generation
        state.removing = desired is None
        if isinstance(action, Apply):
            state.note("pending")
            cause: Cause = "change" if self.caught_up.is_set() else "start"
            if cause == "start":
                self._remember(state, action.desired)
            self._begin(name, state, "apply", lambda: self._apply(state, action.desired, cause))
        else:
            self._begin(name, state, "remove", lambda: self._remove(name, state))

    def _remember(self, state: ModelState, desired: DesiredDeployment) -> None:
        """What versions took in memory before this process began need not be guessed."""
        before = self._before.get(desired.model_id)
        if before is not None and before.generation == desired.generation:
            sizes = {row["version"]: row["memory_bytes"] for row in before.versions if row.get("memory_bytes")}
            state.known_sizes(desired.load_key).update(sizes)

    def _begin(self, name: str, state: ModelState, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do this for a model from now on, in place of what is under way for it."""
        if state.task is not None:
            state.task.cancel()
        state.unloading = what == "unload"
        task = asyncio.create_task(state.in_turn(work), name=f"{what} {name} generation {state.generation}")
        state.task = task
        task.add_done_callback(lambda task: self._ended(name, state, task))

    def _ended(self, name: str, state: ModelState, task: asyncio.Task[None]) -> None:
        """An action is over; one that died of something unexpected is tried again later, like a failed load."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deployment.failed", model=name, generation=state.generation, exc_info=error)
            if state.task is task:
                self._failed(name, state, UNEXPECTED)
                state.removing = False
        if state.task is task:
            state.task = state.loading = None
            state.unloading = False
            if self._closing:
                return
            self._memory.changed()
            self._memory.trim()
            if state.wanted and state.state == "idle":
                self.want(name)
            if state.removing and not task.cancelled():
                self._states.pop(name, None)
        self.wake()

    async def _apply(self, state: ModelState, desired: DesiredDeployment, cause: Cause) -> None:
        def on_state(version: int, phase: str) -> None:
            state.loading = (version, phase)
            state.note(phase)
            self.wake()

        state.wanted = False
        try:
            async with self._memory.room(state, desired, start=cause == "start"):
                began = time.monotonic()
                held = await self._rollout.load(desired, state.loaded, on_state)
                load_s = round(time.monotonic() - began, 3)
                await self._memory.settle(state, desired, held)
                self._swap(state, desired, held)
            if self._published is not None:
                await self._published(desired.model)
        except NoRoom as error:
            await self._no_room(state, desired, cause, error)
            return
        except PlatformError as error:
            self._failed(desired.model, state, error.message)
            return
        state.attempts = 0
        state.wanted = False
        state.note("serving", desired.rolled_back)
        log.info("deployment.serving", model=desired.model, generation=desired.generation, load_s=load_s)

    async def _no_room(self, state: ModelState, desired: DesiredDeployment, cause: Cause, error: NoRoom) -> None:
        """What does not fit is idle, and tried again when it is called; what was asked for just now has failed."""
        if not state.loaded.versions:
            await self._rest(state, desired)
        if state.loaded.versions or cause == "change":
            self._failed(desired.model, state, error.message)
            return
        state.loading = None
        state.note("idle", error.message)
        message = f"The model {desired.model!r} is not in memory and cannot be loaded now. {error.message}"
        self._catalogue.refuse(desired.model, NoRoom(message, retry_after_s=error.retry_after_s))

    async def _rest(self, state: ModelState, desired: DesiredDeployment) -> None:
        """Let it be called though it is not in memory."""
        if state.resting == desired and self._catalogue.is_idle(desired.model):
            return
        facts = await self._loader.describe(desired)
        versions = [
            facts[number].as_idle(desired.model, number) for number in desired.live_versions if number in facts
        ]
        state.resting = desired
        self._catalogue.swap(desired.model, [], idle_model(desired, versions))

    def _unload_for_room(self, model: str) -> None:
        self._unload(model, "Unloaded to make room for others.")

    def _unload(self, model: str, reason: str) -> None:
        """Begin to take a model out of memory; a call loads it again."""
        state = self._states[model]
        if state.task is None and state.loaded.versions:
            self._begin(model, state, "unload", lambda: self._to_rest(model, state, reason))

    async def _to_rest(self, name: str, state: ModelState, reason: str) -> None:
        applied = state.loaded.applied
        assert applied is not None
        state.stop_watching()
        versions = [state.loaded.versions[number].as_idle() for number in applied.live_versions]
        leaving = self._rollout.remove(name, state.loaded, idle_model(applied, versions))
        state.resting = applied
        state.note("draining")
        self.wake()
        # Requests under way end by their own deadline, and none of them fails to make room for another.
        timeout_s = max(self._drains.timeout_s, applied.timeout_ms / 1000 + 1)
        await asyncio.shield(self._drains.begin_of(name, state, leaving, timeout_s))
        state.note("idle", reason)
        log.info("deployment.idle", model=name, reason=reason)

    def _swap(self, state: ModelState, desired: DesiredDeployment, held: Mapping[int, LoadedVersion]) -> None:
        """Not a coroutine: what leaves must be drained whatever happens to the task that brings the new in."""
        state.loading = state.resting = None
        state.reserved_bytes = 0
        was, before = self.counts(desired.model), state.loaded.applied
        leaving = self._rollout.swap(desired, state.loaded, held)
        watch = begin(desired, before, state.watch, was, self.counts(desired.model), time.monotonic())
        state.stop_watching()
        if watch is not None:
            leaving = park(state.loaded, leaving, watch.before.versions if self._memory.fits() else ())
            self._watching.begin(state, watch)
        self._drains.begin_of(desired.model, state, leaving)

    def _failed(self, model: str, state: ModelState, message: str) -> None:
        state.attempts += 1
        state.retry_at = time.monotonic() + min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** (state.attempts - 1))
        state.loading = None
        serving = ", ".join(map(str, sorted(state.loaded.versions)))
        state.note("failed", f"{message} Version {serving} keeps serving." if serving else message)
        log.warning("deployment.failed", model=model, generation=state.generation, reason=message)
        state.wanted = False
        self._refuse(model, state)

    def _refuse(self, model: str, state: ModelState) -> None:
        """Tell those who wait for its load that it has failed."""
        message = f"The model {model!r} could not be loaded: {state.reason}"
        retry_after_s = max(1.0, state.retry_at - time.monotonic())
        self._catalogue.refuse(model, NotReady(message, retry_after_s=retry_after_s))

    async def _remove(self, name: str, state: ModelState) -> None:
        state.stop_watching()
        state.resting, state.wanted = None, False
        leaving = self._rollout.remove(name, state.loaded)
        if leaving:
            state.note("draining")
            self.wake()
            # Shielded: a new desired state may end this task, but what left must still be closed.
            await asyncio.shield(self._drains.begin_of(name, state, leaving))
        state.note("stopped")
        log.info("deployment.stopped", model=name)

    async def _write_observed(self) -> None:
        await write_observed(self._database, self.node, self._states.values())
