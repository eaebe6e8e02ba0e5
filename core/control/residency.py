"""Gives room in memory to what is to be loaded, within the node's budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from core.control.memory_policy import Evict, Fits, Refuse, Resident, Wait, make_room, no_room
from core.control.model_state import ModelState
from core.control.rollout import CONCURRENT_LOADS
from core.engines.cores import cores_available
from core.errors import NoRoom

RETRY_AFTER_S = 5.0


class Residency:
    """`room` around each load, `settle` once its size is known; `changed` whenever memory may have come back.

    `unload` begins to take a model out of memory. A budget of 0 bytes is none.
    """

    def __init__(
        self, budget_bytes: int, residents: Callable[[], Sequence[Resident]], unload: Callable[[str], None]
    ) -> None:
        self.budget_bytes = budget_bytes
        self._residents = residents
        self._unload = unload
        self._turn = asyncio.Lock()
        # What is set aside for a load serves nobody until that is over: no more at once than the cores can do.
        self._places = asyncio.Semaphore(max(2, min(CONCURRENT_LOADS, cores_available())))
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something has left memory, or may do so now."""
        self._changed.set()

    @asynccontextmanager
    async def room(
        self, model: str, state: ModelState, wanted_bytes: int, least_bytes: int, *, alone: bool, evict: bool
    ) -> AsyncIterator[None]:
        """Set memory aside within the block, in the order of asking; `alone`, nobody else gets any meanwhile.

        A guess may be wrong: so what has never been measured is loaded alone, and where there is no room for what
        is wanted, the least that it can take is enough to try. Raises NoRoom.
        """
        state.in_line = True
        self.changed()
        try:
            async with self._places, self._given(model, state, (wanted_bytes, least_bytes), alone, evict):
                yield
        finally:
            state.in_line = False

    @asynccontextmanager
    async def _given(
        self, model: str, state: ModelState, sizes: tuple[int, int], alone: bool, evict: bool
    ) -> AsyncIterator[None]:
        mine = False
        try:
            await self._turn.acquire()
            mine = True
            state.reserved_bytes = await self._make_either(model, sizes, evict)
            state.in_line = False
            if not alone:
                self._turn.release()
                mine = False
            yield
        finally:
            state.reserved_bytes = 0
            if mine:
                self._turn.release()
            self.changed()

    async def settle(self, model: str, state: ModelState, size_bytes: int) -> None:
        """It is loaded and takes so much: others leave where that is more than was thought. Raises NoRoom."""
        if not self.budget_bytes or not size_bytes:
            return
        state.reserved_bytes = size_bytes
        if size_bytes > self.budget_bytes:
            verdict = make_room(model, size_bytes, self.budget_bytes, ())
            assert isinstance(verdict, Refuse)
            raise _no_room(verdict)
        try:
            await self._make(model, 0, evict=True, settling=True)
        except NoRoom as error:
            state.reserved_bytes = 0
            raise _no_room(Refuse(no_room(size_bytes, self.budget_bytes, self._residents()))) from error

    def fits(self) -> bool:
        """Whether everything in memory is within the budget."""
        return not self.budget_bytes or isinstance(self._judge("", 0), Fits)

    def trim(self) -> None:
        """Let models leave where all together have grown beyond the budget."""
        if self.budget_bytes and isinstance(verdict := self._judge("", 0), Evict):
            self._evict(verdict)

    async def _make_either(self, model: str, sizes: tuple[int, int], evict: bool) -> int:
        wanted_bytes, least_bytes = sizes
        try:
            await self._make(model, wanted_bytes, evict)
        except NoRoom:
            if least_bytes >= wanted_bytes:
                raise
            await self._make(model, least_bytes, evict)
            return least_bytes
        return wanted_bytes

    async def _make(self, model: str, needed_bytes: int, evict: bool, settling: bool = False) -> None:
        while True:
            self._changed.clear()
            verdict = self._judge(model, needed_bytes, evict)
            if isinstance(verdict, Fits):
                return
            if isinstance(verdict, Refuse):
                raise _no_room(verdict)
            if isinstance(verdict, Wait) and verdict.moves and settling:
                return  # two that are loaded already must not wait for each other; who is last makes room
            if isinstance(verdict, Evict):
                self._evict(verdict)
            await self._changed.wait()

    def _judge(self, model: str, needed_bytes: int, evict: bool = True) -> Fits | Evict | Wait | Refuse:
        return make_room(model, needed_bytes, self.budget_bytes, self._residents(), evict=evict)

    def _evict(self, verdict: Evict) -> None:
        for model in verdict.models:
            self._unload(model)


def _no_room(verdict: Refuse) -> NoRoom:
    return NoRoom(verdict.reason, retry_after_s=RETRY_AFTER_S)
