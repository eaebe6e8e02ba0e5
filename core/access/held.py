"""Sessions that held a moment ago, for what a browser asks for again and again or keeps open.

A dashboard that is left open asks for its figures several times a minute and for its live ones without end. Asked
of the database one by one, whether all of them still may see them costs more than the figures.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from core.access.sessions import Holding, Principal, SessionService, parts_of

WATCHED_S: Final = 1.5
"""So long what stays open believes that its session holds, once the database has said so: of events that come once
a second, every other one asks."""
FRESH_S: Final = 3.0
"""So long what is asked for again believes it: where a page watches, what that learns is enough."""
RESUMED_S: Final = 30.0
"""So long none is resumed again: one that is used has to be now and then, or it goes idle."""
MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said last of a session."""

    holding: Holding
    at: float
    resume_at: float
    """From then on a cookie is looked at in full again; in seconds of the clock, as `at`."""


class HeldSessions:
    """Believes what the database said a moment ago, and asks it about all who come together in one query.

    For figures alone: whatever changes something, or shows it for the first time, asks SessionService itself.
    Belongs to one event loop.
    """

    def __init__(self, sessions: SessionService, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions = sessions
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._wanted: set[str] = set()
        self._asking: asyncio.Task[Mapping[str, Holding]] | None = None

    async def resume(self, cookie: str) -> Principal:
        """As `SessionService.resume`, by what is known where that is fresh. Raises Unauthenticated."""
        session_id, secret_hash = parts_of(cookie)
        known = self._known.get(session_id)
        if known is not None and self._clock() < known.resume_at:
            holding = await self._holding(session_id, FRESH_S)
            if holding is not None and hmac.compare_digest(holding.secret_hash, secret_hash):
                return holding.principal
        asked_at = self._clock()
        principal = await self._sessions.resume(cookie)
        self._note(session_id, Holding(principal, secret_hash), asked_at, asked_at + RESUMED_S)
        return principal

    async def holds(self, principal: Principal) -> bool:
        """Whether a session goes on, with the same role; to ask is not to use it."""
        holding = await self._holding(principal.session_id, WATCHED_S)
        return holding is not None and holding.principal == principal

    async def _holding(self, session_id: str, within_s: float) -> Holding | None:
        known = self._known.get(session_id)
        if known is not None and self._clock() < known.at + within_s:
            return known.holding
        self._wanted.add(session_id)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="sessions that hold")
            self._asking.add_done_callback(_seen)
        return (await asyncio.shield(self._asking)).get(session_id)

    async def _ask(self) -> Mapping[str, Holding]:
        await asyncio.sleep(0)  # all who wake for the same figures come along
        wanted, self._wanted, self._asking = self._wanted, set(), None
        asked_at = self._clock()  # an answer that takes long is as old as its question
        found = await self._sessions.holding(wanted)
        for session_id in wanted:
            holding, known = found.get(session_id), self._known.pop(session_id, None)
            if holding is not None:
                self._note(session_id, holding, asked_at, known.resume_at if known is not None else 0.0)
        return found

    def _note(self, session_id: str, holding: Holding, asked_at: float, resume_at: float) -> None:
        self._known[session_id] = _Known(holding, asked_at, resume_at)
        self._known.move_to_end(session_id)
        while len(self._known) > MOST:
            self._known.popitem(last=False)


def _seen(asked: asyncio.Task[Mapping[str, Holding]]) -> None:
    """Let an error be no surprise where all who waited for the answer have left."""
    if not asked.cancelled():
        asked.exception()
