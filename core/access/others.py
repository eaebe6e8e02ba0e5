"""Letting the other workers of this machine take over what one of them has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

TellOthers = Callable[[], Awaitable[None]]
"""Tells the other workers to look, and returns once they have taken over what there is, or the time is up."""


async def nobody() -> None:
    """Where there are no other workers."""
