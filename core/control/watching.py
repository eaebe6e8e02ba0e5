"""Stands by after a rollout: a version that does badly makes the platform desire again what was before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from core.control.deploying import roll_back_itself
from core.control.drains import Drains
from core.control.model_state import ModelState
from core.control.watch import Watch, reason_to_roll_back
from core.database.session import Database
from core.errors import Conflict, NotFound, PlatformError
from core.serving.version_health import Snapshot

log = structlog.get_logger(__name__)

WATCH_EVERY_S = 0.1
ROLL_BACK_AGAIN_S = 0.5


class Watching:
    """`begin` for a watch that there is now. `counts` answers a model's counters, over all processes."""

    def __init__(
        self, database: Database, counts: Callable[[str], Snapshot], drains: Drains, wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._counts = counts
        self._drains = drains
        self._wake = wake

    def begin(self, state: ModelState, watch: Watch) -> None:
        """Watch from now on, until the window has passed or `state.stop_watching` is called."""
        state.watch = watch
        state.watching = asyncio.create_task(self._watch(state, watch), name=f"watch {watch.desired.model}")
        state.watching.add_done_callback(_report_death)

    async def _watch(self, state: ModelState, watch: Watch) -> None:
        """Look until the window has passed; go back when a version does badly."""
        model = watch.desired.model
        while (now := time.monotonic()) < watch.until:
            reason = reason_to_roll_back(watch, self._counts(model))
            if reason is not None:
                if await self._roll_back(watch, reason):
                    return  # what is on standby is about to serve again
                break
            await asyncio.sleep(min(WATCH_EVERY_S, watch.until - now))
        state.watch = None
        while state.task is not None:  # what is being loaded may come to serve beside what is on standby
            await asyncio.wait((state.task,))
        state.watching = None
        self._drains.begin_of(model, state, state.loaded.dismiss())

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
                    self._wake()
                return done


def _report_death(task: asyncio.Task[None]) -> None:
    """A watch that ends by an error is told, not passed over."""
    if not task.cancelled() and task.exception() is not None:
        log.error("background.died", task=task.get_name(), error=repr(task.exception()))
