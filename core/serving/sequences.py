"""What is kept of sequences between their parts: in the process that has the model's queue, for all that serve it.

A sequence has one part under way at a time; the next one waits. Nobody else's part can come between taking a state
and keeping the next. What is unused for long is dropped, and there are never more than so many (SequenceLimits).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from core.errors import Conflict, DeadlineExceeded, RunFailed, ShuttingDown, Unavailable
from core.serving.request import SequencePart
from core.tasks.stepped import State


@dataclass(frozen=True, slots=True)
class SequenceLimits:
    """How much is kept, of one version of a model."""

    most: int = 1024
    idle_s: float = 60.0
    state_bytes: int = 32 * 1024
    """Of one array of a state."""


DEFAULT_SEQUENCES: Final = SequenceLimits()


class Hold(Protocol):
    """The right to make the next part of a sequence. `state` is empty before the first.

    Exactly one of `keep` and `give_back` is called, once.
    """

    state: State

    def keep(self, state: State | None) -> None:
        """The part was answered: keep this for the next one, or nothing where it was the last."""

    def give_back(self) -> None:
        """The part was not answered: all is as it was before."""


class _Kept:
    """One sequence."""

    __slots__ = ("free", "state", "used_at")

    def __init__(self) -> None:
        self.state: State | None = None
        self.used_at = 0.0
        self.free = asyncio.Event()


class Sequences:
    """All sequences of one model's version. Lives on the event loop."""

    def __init__(
        self, limits: SequenceLimits = DEFAULT_SEQUENCES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._now = now
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    async def hold(self, part: SequencePart, deadline: float) -> Hold:
        """Take hold of a sequence, after the part that is under way. `start` begins it anew.

        Raises Conflict (there is none of this id), Unavailable (too many), DeadlineExceeded or ShuttingDown.
        """
        while True:
            if self._closed:
                raise ShuttingDown("This version of the model is being taken down; start the sequence anew.")
            self._drop_idle()
            kept = self._kept.get(part.id)
            if kept is None:
                return self._begin(part)
            if kept.free.is_set():
                kept.free.clear()
                self._kept.move_to_end(part.id)
                return _LocalHold(self, part.id, kept, {} if part.start else kept.state or {})
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await kept.free.wait()
            except TimeoutError:
                raise DeadlineExceeded("The deadline passed while the part before was answered.") from None

    def close(self) -> None:
        """Forget all; whoever waits is refused."""
        self._closed = True
        for kept in self._kept.values():
            kept.free.set()
        self._kept.clear()

    def _begin(self, part: SequencePart) -> Hold:
        if not part.start:
            raise Conflict(
                "There is no such sequence: begin it with its start, also where it was unused for "
                f"{self.limits.idle_s:g} seconds or the model was loaded anew."
            )
        most = self.limits.most
        if len(self._kept) >= most:
            raise Unavailable(f"The model keeps {most} sequences already; try again.", retry_after_s=1)
        kept = self._kept[part.id] = _Kept()
        return _LocalHold(self, part.id, kept, {})

    def _drop_idle(self) -> None:
        until = self._now() - self.limits.idle_s
        while self._kept:
            id_, kept = next(iter(self._kept.items()))
            if not kept.free.is_set() or kept.used_at > until:
                return
            del self._kept[id_]

    def _release(self, id_: str, kept: _Kept) -> None:
        if self._kept.get(id_) is kept:
            if kept.state is None:
                del self._kept[id_]
            else:
                kept.used_at = self._now()
                self._kept.move_to_end(id_)
        kept.free.set()


class _LocalHold:
    """See Hold."""

    def __init__(self, sequences: Sequences, id_: str, kept: _Kept, state: State) -> None:
        self.state = state
        self._sequences = sequences
        self._id = id_
        self._kept = kept

    def keep(self, state: State | None) -> None:
        """See Hold. Raises RunFailed, having given back, for what is too large."""
        try:
            check_state(state, self._sequences.limits.state_bytes)
            self._kept.state = state
        finally:
            self._sequences._release(self._id, self._kept)

    def give_back(self) -> None:
        """See Hold."""
        self._sequences._release(self._id, self._kept)


def check_state(state: State | None, most_bytes: int) -> None:
    """Raises RunFailed where an array is larger than `most_bytes`."""
    for name, value in (state or {}).items():
        if value.nbytes > most_bytes:
            raise RunFailed(f"The state {name} of the sequence has more than {most_bytes / 1024:g} KB.")
