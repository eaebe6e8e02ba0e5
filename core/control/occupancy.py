"""Who holds how much of this node's memory: room before a load, sizes after it, and who may leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from core.control.desired import DesiredDeployment
from core.control.drains import Drains
from core.control.memory import measure, measure_host
from core.control.memory_policy import Resident, idle_too_long, next_idle
from core.control.model_state import ModelState
from core.control.residency import Residency
from core.control.rollout import LoadedVersion, Loads

MEASURE_EVERY_S = 10.0
GROWTH = 0.05
"""Memory that has changed by less than this part is not told anew."""
WHILE_LOADING = 2
"""So often a file is in memory while it is loaded, beside what stays (measured with ONNX Runtime)."""


class Occupancy:
    """Looks at `states`, which the reconciler owns, and at `desired`, asked anew each time.

    `usage` answers when a model was last used and whether it is now; `unload` begins to take one out of memory. A
    budget of 0 bytes is none.
    """

    def __init__(
        self,
        budget_bytes: int,
        states: Mapping[str, ModelState],
        desired: Callable[[], Mapping[str, DesiredDeployment]],
        usage: Callable[[str], tuple[float, bool]],
        loader: Loads,
        drains: Drains,
        unload: Callable[[str], None],
    ) -> None:
        self._states = states
        self._desired = desired
        self._usage = usage
        self._loader = loader
        self._drains = drains
        self._residency = Residency(budget_bytes, self.residents, unload)
        self._measured_at = 0.0

    def changed(self) -> None:
        """Something has left memory, or may do so now."""
        self._residency.changed()

    def trim(self) -> None:
        """Let models leave where all together have grown beyond the budget."""
        self._residency.trim()

    def fits(self) -> bool:
        """Whether everything in memory is within the budget."""
        return self._residency.fits()

    def residents(self) -> list[Resident]:
        """Who holds memory, as the policy sees it."""
        found, desired = [], self._desired()
        for name, state in self._states.items():
            size_bytes = state.loaded.memory_bytes + state.reserved_bytes
            if (state.loaded.versions or size_bytes) and name in desired:
                found.append(self._resident(desired[name], state, size_bytes))
        return [*found, *(Resident("", held, leaving=True) for held in self._drains.sizes() if held)]

    def _resident(self, desired: DesiredDeployment, state: ModelState, size_bytes: int) -> Resident:
        last_used, busy = self._usage(desired.model)
        return Resident(
            desired.model,
            size_bytes,
            last_used,
            pinned=desired.pinned,
            busy=busy or state.watching is not None,
            moving=state.task is not None and not state.in_line,
            in_line=state.in_line,
            leaving=state.unloading,
            idle_unload_s=desired.idle_unload_s,
        )

    def idle_too_long(self) -> list[str]:
        """Models that nobody has called for as long as their deployment says."""
        return idle_too_long(self.residents(), time.monotonic()) if self._may_idle() else []

    def next_idle(self, now: float) -> float | None:
        """When one will have been idle for too long; None where none will."""
        return next_idle(self.residents(), now) if self._may_idle() else None

    def _may_idle(self) -> bool:
        return any(desired.idle_unload_s is not None for desired in self._desired().values())

    @asynccontextmanager
    async def room(self, state: ModelState, desired: DesiredDeployment, *, start: bool) -> AsyncIterator[None]:
        """Memory for the versions that are to be loaded; at a node's start nobody leaves for it. Raises NoRoom."""
        missing = [version for version in desired.versions if not state.loaded.find(version, desired.load_key)]
        if not self._residency.budget_bytes or not missing:
            yield
            return
        known = state.known_sizes(desired.load_key)
        new = [version for version in missing if version not in known]
        facts = await self._loader.describe(desired)
        files = {version: facts[version].size_bytes for version in missing if version in facts}
        measured = sum(known.get(version, 0) for version in missing)
        guessed = sum(facts[version].guess_bytes for version in new if version in facts)
        passing_bytes = WHILE_LOADING * max(files.values(), default=0)
        wanted_bytes = measured + guessed + passing_bytes
        least_bytes = measured + sum(files.get(version, 0) for version in new)
        sizes = (wanted_bytes, wanted_bytes if start else least_bytes)
        async with self._residency.room(desired.model, state, *sizes, alone=bool(new), evict=not start):
            yield

    async def settle(
        self, state: ModelState, desired: DesiredDeployment, held: Mapping[int, LoadedVersion]
    ) -> None:
        """Note what has been loaded takes, and close it again where that is too much. Raises NoRoom."""
        known = state.known_sizes(desired.load_key)
        before = state.loaded.held
        fresh = {number: one for number, one in held.items() if not any(one is other for other in before)}
        try:
            for number, one in fresh.items():
                one.memory_bytes, one.gpu_bytes, certain = await measure(one.deployment)
                if self._residency.budget_bytes and not certain and number in known:
                    one.memory_bytes = known[number]  # of the time when it was loaded alone
                if one.memory_bytes:
                    known[number] = one.memory_bytes
            await self._residency.settle(desired.model, state, sum(one.memory_bytes for one in fresh.values()))
        except BaseException:
            await asyncio.shield(self._drains.begin(list(fresh.values())))
            raise

    async def measure_again(self) -> None:
        """From time to time, note what versions in processes of their own take by now."""
        now = time.monotonic()
        if now - self._measured_at < MEASURE_EVERY_S:
            return
        self._measured_at = now
        for state in list(self._states.values()):
            for number, held in list(state.loaded.versions.items()):
                size_bytes = await measure_host(held.deployment)
                if abs(size_bytes - held.memory_bytes) > GROWTH * held.memory_bytes and size_bytes:
                    held.memory_bytes = state.sizes[number] = size_bytes
                    state.dirty = True
        self._residency.trim()
