"""What a server does for being one of several: its heart-beat, and hearing of the others' changes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from core.control.nodes import Heart
from core.database.session import Database
from core.settings import Settings

Jobs = dict[str, Coroutine[Any, Any, None]]


async def join_nodes(settings: Settings, database: Database, node: str, stack: AsyncExitStack) -> Jobs:
    """The heart-beat of this server, which leaves the list when the stack is left."""
    heart = Heart(database, settings, node)
    stack.push_async_callback(heart.stop)
    return {"heart-beat": heart.run()}


def listen(settings: Settings, on_notice: Callable[[], None]) -> Jobs:
    """What hears of changes at once; nothing with SQLite, where nobody else is told of them but by the poll."""
    if settings.database_url.startswith("sqlite"):
        return {}
    from core.database.listener import Listener

    return {"listener": Listener(settings.database_url, on_notice, timeout_s=settings.database.timeout_s).run()}
