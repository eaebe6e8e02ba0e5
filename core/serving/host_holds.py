"""One connection's holds on sequences, in the host: given back when the connection goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from core.serving.request import SequencePart
from core.serving.sequences import Hold, Sequences
from core.tasks.stepped import State


class HostHolds:
    """By the ids of the other end. `answer(id, state)` and `refuse(id, error)` send what came of `begin`."""

    def __init__(
        self,
        sequences: Sequences,
        answer: Callable[[int, State], None],
        refuse: Callable[[int, BaseException], None],
    ) -> None:
        self._sequences = sequences
        self._answer = answer
        self._refuse = refuse
        self._held: dict[int, Hold] = {}
        self._begun: dict[int, asyncio.Task[None]] = {}

    def begin(self, header: dict[str, Any]) -> None:
        """Take hold, now or after the part that is under way."""
        id_ = header["id"]
        part = SequencePart(header["s"], start=header["b"])
        task = asyncio.create_task(self._begin(id_, part, header["d"]), name="hold sequence")
        self._begun[id_] = task
        task.add_done_callback(lambda _: self._begun.pop(id_, None))

    def keep(self, id_: int, state: State | None) -> None:
        """The part was answered."""
        hold = self._held.pop(id_, None)
        if hold is not None:
            hold.keep(state)

    def give_back(self, id_: int) -> None:
        """The part was not answered, or nobody waits for it any more."""
        task, hold = self._begun.get(id_), self._held.pop(id_, None)
        if task is not None:
            task.cancel()
        if hold is not None:
            hold.give_back()

    def close(self) -> None:
        """The other end has gone."""
        for id_ in [*self._begun, *self._held]:
            self.give_back(id_)

    async def _begin(self, id_: int, part: SequencePart, deadline: float) -> None:
        try:
            hold = await self._sequences.hold(part, deadline)
        except Exception as error:
            self._refuse(id_, error)
            return
        self._held[id_] = hold
        self._answer(id_, hold.state)
