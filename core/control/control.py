"""What the HTTP side needs of whoever decides what is served: the reconciler, or a worker's follower."""

from __future__ import annotations

import asyncio
from typing import Protocol

from core.control.totals import Report


class Control(Protocol):
    """Wake it after a change; ask it for readiness."""

    node: str
    caught_up: asyncio.Event

    def wake(self) -> None:
        """Look at the database now."""

    def not_ready(self) -> dict[str, str]:
        """Models desired as running that do not answer, each with its state and reason; idle ones do."""

    def memory(self) -> dict[str, dict[str, int]]:
        """By model, the bytes of host memory that each version in it takes, by its number as text."""

    def states(self) -> dict[str, str]:
        """The state of every model that this node knows."""

    async def totals(self, model: str | None = None) -> Report | None:
        """What all processes have counted, of one model or of all; None where this one is alone.

        Raises Unavailable when it cannot be had.
        """

    async def close(self) -> None:
        """Let go of all that is served."""
