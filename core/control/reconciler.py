"""The only one who loads and unloads: keeps what this node serves equal to what the database desires.

Woken by `wake` after every change made here, and by a poll for changes made elsewhere. One action at a time a
model; a newer desired state cancels an older one that is still loading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from core.control.deploying import roll_back_itself
from core.control.desired import DesiredDeployment, desired_from_row
from core.control.model_state import ModelState
from core.control.plan import Action, Apply, next_retry, plan
from core.control.rollout import LoadedVersion, Loads, Rollout, drain_and_close, park
from core.control.totals import Report
from core.control.watch import Watch, begin, reason_to_roll_back
from core.database.repositories.deployments import Deployments
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from core.errors import Conflict, NotFound, PlatformError
from core.serving.catalogue import Catalogue
from core.serving.version_health import Snapshot, merge

log = structlog.get_logger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 5.0, 300.0
WATCH_EVERY_S = 0.1
ROLL_BACK_AGAIN_S = 0.5
UNEXPECTED = "An unexpected error stopped the load; the server's log has its trace."


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
    ) -> None:
        """`counts` answers a model's counters from every process that serves it; without it, this one does."""
        self.node = node
        self._database = database
        self._catalogue = catalogue
        self._rollout = Rollout(catalogue, loader, self._drain)
        self._poll_s = poll_s
        self._drain_s = drain_s
        self._published = published
        self.on_desired: Callable[[], None] = lambda: None
        """Called when it is known what is desired, before anything is done about it."""
        self._counts = counts or (lambda model: [catalogue.snapshot(model)])
        self._states: dict[str, ModelState] = {}
        self._drains: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._desired: Mapping[str, DesiredDeployment] = {}
        self._revision = -1
        self.caught_up = asyncio.Event()
        """Set once the desired state has been read for the first time."""

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    def not_ready(self) -> dict[str, str]:
        """Models desired as running of which no version is live, each with its state and reason."""
        waiting = {}
        for name, desired in self._desired.items():
            if desired.running and not self._catalogue.serving(name):
                state = self._states.get(name)
                waiting[name] = "pending" if state is None else state.sentence()
        return waiting

    def expected(self) -> dict[str, tuple[int, ...]]:
        """The versions that should answer for each model, whether or not they do yet."""
        return {name: desired.live_versions for name, desired in self._desired.items() if desired.running}

    def states(self) -> dict[str, str]:
        """The state of every model that this node knows."""
        return {name: state.state for name, state in self._states.items()}

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
        states = self._states.values()
        tasks = [task for state in states for task in (state.task, state.watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, state in self._states.items():
            self._drain_of(name, state, self._rollout.remove(name, state.loaded))
        while self._drains:
            await asyncio.gather(*self._drains, return_exceptions=True)

    async def _round(self) -> None:
        await self._read_desired()
        self._catalogue.expected = self.expected()
        self.on_desired()
        actual = {name: state.actual() for name, state in self._states.items()}
        for action in plan(self._desired, actual, time.monotonic()):
            self._act(action)
        await self._write_observed()

    async def _sleep(self) -> None:
        retry_at = next_retry({name: state.actual() for name, state in self._states.items()})
        wait_s = self._poll_s
        if retry_at is not None:
            wait_s = min(wait_s, max(0.05, retry_at - time.monotonic()))
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
            rows = await Deployments(session).desired()
            self._desired = {
                row.model.name: desired_from_row(
                    row.model_id,
                    row.model.name,
                    row.generation,
                    row.running,
                    row.spec,
                    origin=f"{row.model_id} {row.model.created_at.isoformat()}",
                )
                for row in rows
            }
        self._revision = revision

    def _act(self, action: Action) -> None:
        name = action.desired.model if isinstance(action, Apply) else action.model
        state = self._states.setdefault(name, ModelState(0))
        if state.task is not None:
            state.task.cancel()
        desired = action.desired
        if desired is not None:
            if (state.origin, state.generation) != (desired.origin, desired.generation):
                state.attempts = 0
            state.model_id, state.origin, state.generation = desired.model_id, desired.origin, desired.generation
        state.removing = desired is None
        if isinstance(action, Apply):
            state.note("pending")
            work, what = lambda: self._apply(state, action.desired), "apply"
        else:
            work, what = lambda: self._remove(name, state), "remove"
        task = asyncio.create_task(_in_turn(state, work), name=f"{what} {name} generation {state.generation}")
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
            if state.removing and not task.cancelled():
                self._states.pop(name, None)
        self.wake()

    async def _apply(self, state: ModelState, desired: DesiredDeployment) -> None:
        def on_state(version: int, phase: str) -> None:
            state.loading = (version, phase)
            state.note(phase)
            self.wake()

        try:
            held = await self._rollout.load(desired, state.loaded, on_state)
            self._swap(state, desired, held)
            if self._published is not None:
                await self._published(desired.model)
        except PlatformError as error:
            self._failed(desired.model, state, error.message)
            return
        state.attempts = 0
        state.note("serving", desired.rolled_back)
        log.info("deployment.serving", model=desired.model, generation=desired.generation)

    def _swap(self, state: ModelState, desired: DesiredDeployment, held: Mapping[int, LoadedVersion]) -> None:
        """Not a coroutine: what leaves must be drained whatever happens to the task that brings the new in."""
        state.loading = None
        was, before = self.counts(desired.model), state.loaded.applied
        leaving = self._rollout.swap(desired, state.loaded, held)
        watch = begin(desired, before, state.watch, was, self.counts(desired.model), time.monotonic())
        state.stop_watching()
        if watch is not None:
            leaving = park(state.loaded, leaving, watch.before.versions)
            state.watch = watch
            state.watching = asyncio.create_task(self._watch(state, watch), name=f"watch {desired.model}")
            state.watching.add_done_callback(_report_death)
        self._drain_of(desired.model, state, leaving)

    async def _watch(self, state: ModelState, watch: Watch) -> None:
        """Look until the window has passed; go back when a version does badly."""
        model = watch.desired.model
        while (now := time.monotonic()) < watch.until:
            reason = reason_to_roll_back(watch, self.counts(model))
            if reason is not None:
                if await self._roll_back(watch, reason):
                    return  # what is on standby is about to serve again
                break
            await asyncio.sleep(min(WATCH_EVERY_S, watch.until - now))
        state.watch = state.watching = None
        self._drain_of(model, state, state.loaded.dismiss())

    async def _roll_back(self, watch: Watch, reason: str) -> bool:
        """Desire what was before; false where it cannot be, or where somebody has desired something newer."""
        while True:
            try:
                async with self._database.transaction() as session:
                    row = await roll_back_itself(session, watch.desired, watch.before, reason)
                    done = row is not None
            except (Conflict, NotFound) as error:
                log.error("deployment.not_rolled_back", model=watch.desired.model, reason=error.message)
                return False
            except PlatformError as error:
                log.warning("deployment.rollback_postponed", model=watch.desired.model, reason=error.message)
                await asyncio.sleep(ROLL_BACK_AGAIN_S)
            else:
                if done:
                    log.warning("deployment.rolled_back", model=watch.desired.model, reason=reason)
                    self.wake()
                return done

    def _failed(self, model: str, state: ModelState, message: str) -> None:
        state.attempts += 1
        state.retry_at = time.monotonic() + min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** (state.attempts - 1))
        state.loading = None
        serving = ", ".join(map(str, sorted(state.loaded.versions)))
        state.note("failed", f"{message} Version {serving} keeps serving." if serving else message)
        log.warning("deployment.failed", model=model, generation=state.generation, reason=message)

    async def _remove(self, name: str, state: ModelState) -> None:
        state.stop_watching()
        leaving = self._rollout.remove(name, state.loaded)
        if leaving:
            state.note("draining")
            self.wake()
            # Shielded: a new desired state may end this task, but what left must still be closed.
            await asyncio.shield(self._drain_of(name, state, leaving))
        state.note("stopped")
        log.info("deployment.stopped", model=name)

    def _drain_of(self, name: str, state: ModelState, leaving: Sequence[LoadedVersion]) -> asyncio.Task[None]:
        """Drain and close versions of a model, which shows them meanwhile."""
        numbers = [version.deployment.version for version in leaving]
        state.draining += numbers
        state.dirty = True

        def over(task: asyncio.Task[None]) -> None:
            for number in numbers:
                state.draining.remove(number)
            state.dirty = True
            self.wake()

        task = self._drain(leaving, f"drain {name}")
        if numbers:
            task.add_done_callback(over)
        return task

    def _drain(self, leaving: Sequence[LoadedVersion], name: str = "discard") -> asyncio.Task[None]:
        task = asyncio.create_task(drain_and_close(leaving, self._drain_s), name=name)
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)
        return task

    async def _write_observed(self) -> None:
        """Tell the database what changed since the last time; a state that cannot be told stays dirty."""
        for state in self._states.values():
            state.look_at_hosts()
        changed = [
            state for state in self._states.values() if state.dirty and state.model_id and not state.removing
        ]
        if not changed:
            return
        for state in changed:
            state.dirty = False
        try:
            async with self._database.transaction() as session:
                repository = Deployments(session)
                for state in changed:
                    await repository.write_observed(
                        state.model_id,
                        self.node,
                        generation=state.generation,
                        state=state.state,
                        reason=state.observed_reason(),
                        versions=state.versions(),
                    )
        except BaseException:
            for state in changed:
                state.dirty = True
            raise


async def _in_turn(state: ModelState, work: Callable[[], Awaitable[None]]) -> None:
    """Wait until the action before, which was cancelled, has cleared up after itself; the others need not wait."""
    async with state.turn:
        await work()


def _report_death(task: asyncio.Task[None]) -> None:
    """A watch that ends by an error is told, not passed over."""
    if not task.cancelled() and task.exception() is not None:
        log.error("background.died", task=task.get_name(), error=repr(task.exception()))
