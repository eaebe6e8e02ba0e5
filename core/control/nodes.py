"""Which of several servers this one is, and its heart-beat in the database."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.access.key_print import key_print
from core.access.sessions import token_life_s
from core.database.repositories.nodes import Nodes
from core.database.session import Database
from core.database.tables import Node
from core.errors import PlatformError
from core.settings import InvalidSettings, Settings

log = structlog.get_logger(__name__)

BEAT_EVERY_S: Final = 5.0
ALIVE_S: Final = 20.0
"""A node that was not heard of for so long is taken to be away."""
FORGET_AFTER: Final = timedelta(days=7)
CLOCK_AHEAD_MS: Final = 1000
"""Clocks that differ by more are told of in the log: claims of jobs compare them."""
LOCAL: Final = "local"
_WORD = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it is now. `silent_s` is how long it was not heard of, in seconds."""

    row: Node
    alive: bool
    silent_s: float


def node_name(settings: Settings) -> str:
    """The setting; or `local` with SQLite, which one server has for itself; or a name kept in the data directory.

    Blocks. The last is the host's name with four letters, so that two servers of one machine differ.
    """
    if settings.server.node is not None:
        return settings.server.node
    if settings.database_url.startswith("sqlite"):
        return LOCAL
    path = settings.data_dir / "node"
    made = f"{_WORD.sub('-', socket.gethostname())[:58].strip('-') or 'node'}-{secrets.token_hex(2)}"
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(made)
    except FileExistsError:
        kept = path.read_text(encoding="utf-8").strip()
        return kept if re.fullmatch(r"[A-Za-z0-9.-]{1,64}", kept) else made
    return made


class Heart:
    """Beats for one node: `run` until cancelled, then `stop`."""

    def __init__(self, database: Database, settings: Settings, name: str) -> None:
        self._database = database
        self._name = name
        self._instance = secrets.token_hex(8)
        self._facts = {
            "instance": self._instance,
            "version": version("pulvinar")[:32],
            "address": _address(settings),
            "workers": settings.server.workers,
        }
        self._keys = partial(key_print, settings.keys_dir, token_life_s(settings.access))
        self._other_keys: list[str] = []
        self._first = True

    async def run(self) -> None:
        """Beat. While the database is away nothing is lost: the others see that this one is not heard of."""
        while True:
            try:
                await self.beat()
            except PlatformError as error:
                log.warning("node.not_heard", reason=error.message)
            except Exception:  # a heart that stopped would make a node that serves look dead
                log.exception("node.beat_failed")
            await asyncio.sleep(BEAT_EVERY_S)

    async def beat(self) -> None:
        """Beat once, and forget who has been silent for a week. Raises PlatformError."""
        keys = await asyncio.to_thread(self._key_print)
        async with self._database.transaction() as session:
            nodes = Nodes(session)
            began = time.time()
            now = await nodes.now()
            ahead_ms = round(((began + time.time()) / 2 - now.timestamp()) * 1000)
            told = {**self._facts, "key_print": keys, "clock_ahead_ms": _bounded(ahead_ms)}
            before = await nodes.beat(self._name, **told, started_at=now, seen_at=now)
            await nodes.forget(FORGET_AFTER)
            states = await states_of(session)
        self._look_at(before, ahead_ms)
        self._look_at_keys(other_keys(states, keys))

    async def stop(self) -> None:
        """Leave the list, at an orderly stop."""
        try:
            async with asyncio.timeout(2), self._database.transaction() as session:
                await Nodes(session).leave(self._name, self._instance)
        except (PlatformError, TimeoutError):
            log.warning("node.not_left", node=self._name)

    def _key_print(self) -> str:
        try:
            return self._keys()
        except (InvalidSettings, OSError):  # those who read the keys say so
            return ""

    def _look_at_keys(self, others: list[str]) -> None:
        if others and others != self._other_keys:
            log.warning("node.keys_differ", node=self._name, others=others)
        self._other_keys = others

    def _look_at(self, before: str | None, ahead_ms: int) -> None:
        if abs(ahead_ms) > CLOCK_AHEAD_MS:
            log.warning("node.clock_differs", node=self._name, ahead_ms=ahead_ms)
        # At its first beat a node finds what it was before its start; later, nobody but itself.
        if before not in (None, self._instance) and not self._first:
            log.error("node.name_taken", node=self._name)
        self._first = False


def other_keys(states: Sequence[NodeState], keys: str) -> list[str]:
    """The nodes that are alive and have other keys than these: who signs in there is nobody here."""
    theirs = {one.row.name: one.row.key_print for one in states if one.alive}
    return [name for name, their in theirs.items() if keys and their and their != keys]


async def list_nodes(database: Database) -> Sequence[NodeState]:
    """The nodes that are known, in the order of their names."""
    async with database.session() as session:
        return await states_of(session)


async def states_of(session: AsyncSession) -> Sequence[NodeState]:
    """As `list_nodes`, in a session that is open."""
    nodes = Nodes(session)
    now = await nodes.now()
    return [_state(row, now) for row in await nodes.all()]


def _state(row: Node, now: datetime) -> NodeState:
    silent_s = max(0.0, (now - row.seen_at).total_seconds())
    return NodeState(row, silent_s < ALIVE_S, round(silent_s, 1))


def _address(settings: Settings) -> str:
    host = settings.server.host
    if host in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104: asked about, not bound
        host = socket.gethostname()
    return (f"[{host}]" if ":" in host else host)[:120] + f":{settings.server.port}"


def _bounded(ahead_ms: int) -> int:
    return max(-(2**31), min(2**31 - 1, ahead_ms))
