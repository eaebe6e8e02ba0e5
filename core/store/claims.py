"""Who is at work in a store: the living, whose unfinished things are left alone, and the dead, whose are cleared.

Each process that puts something into a store holds a lock on a file of its own in `owners/`, and all that it has
in `incoming/` begins with that file's name. The kernel lets go of the lock when the process ends, however it ends:
what begins with a name whose lock is free belongs to nobody. The folder may be shared by several machines if its
file system shares locks, as NFS 4 does.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence, Set
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import Unavailable
from core.store.disk import in_thread, storage_errors

LOCK_TIMEOUT_S: Final = 60.0
_LOCK_EVERY_S: Final = 0.02
_ITEM: Final = re.compile(r"([0-9a-f]{12})-[0-9a-f]{32}(?:-([0-9a-f]{64}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Dead:
    """What is left of processes that are no more: their things, the addresses they were changing, their locks."""

    left: Sequence[Path]
    addresses: Set[str]
    locks: Mapping[str, int]


class Claims:
    """The owners of a store's unfinished things, and the locks of its addresses."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._owners = root / "owners"
        self._locks = root / "locks"
        self._name = ""
        self._retire: Callable[[], object] = lambda: None

    def close(self) -> None:
        """Own nothing any more; the end of the process does the same."""
        self._retire()
        self._name = ""

    def new_name(self) -> str:
        """A fresh name in `incoming/` for something of this process."""
        if not self._name:
            self._name, file = _become_owner(self._owners)
            self._retire = weakref.finalize(self, _retire, self._owners / self._name, file)
        return f"{self._name}-{secrets.token_hex(16)}"

    @asynccontextmanager
    async def changing(self, addresses: Collection[str]) -> AsyncIterator[None]:
        """Nobody else, in whichever process, adds or removes the artifacts at these addresses meanwhile.

        It is also noted on the disk, so that what a killed process has begun with them can be undone. Raises
        Unavailable where another holds one of them for too long.
        """
        with ExitStack() as held:
            for shelf in sorted({address[:2] for address in addresses}):
                held.callback(os.close, await self._lock(shelf))  # which also lets go of the lock
            notes: list[Path] = []
            held.callback(_remove, notes)
            await in_thread(lambda stop: self._note(addresses, notes))
            yield

    def find_dead(self) -> Dead:
        """What processes that are no more have left in `incoming/`; until `bury`, nobody else is shown it."""
        there = list(self._incoming.iterdir()) if self._incoming.is_dir() else []
        named = [(path, match) for path in there if (match := _ITEM.fullmatch(path.name))]
        locks = {}
        for name in {match[1] for _, match in named} - {self._name}:
            file = _take_over(self._owners / name)
            if file is not None:
                locks[name] = file
        mine = [(path, match[2]) for path, match in named if match[1] in locks]
        return Dead([path for path, _ in mine], {address for _, address in mine if address}, locks)

    def is_being_changed(self, address: str) -> bool:
        """Whether anybody, dead or alive, has begun to change the artifact at this address."""
        there = self._incoming.iterdir() if self._incoming.is_dir() else ()
        return any(path.name.endswith(f"-{address}") for path in there)

    def left_by_the_dead(self) -> list[Path]:
        """What in `incoming/` has no living owner; only looks."""
        dead = self.find_dead()
        for file in dead.locks.values():
            os.close(file)
        there = list(self._incoming.iterdir()) if self._incoming.is_dir() else []
        return [*dead.left, *(path for path in there if not _ITEM.fullmatch(path.name))]

    def bury(self, dead: Dead) -> None:
        """Forget them; what they have left has been cleared."""
        for name, file in dead.locks.items():
            if not any(path.name.startswith(name) and path.exists() for path in dead.left):
                (self._owners / name).unlink(missing_ok=True)
            os.close(file)

    def _note(self, addresses: Collection[str], notes: list[Path]) -> None:
        """Add to `notes` what there is to be removed, also where it fails on the way."""
        with storage_errors():
            self._incoming.mkdir(parents=True, exist_ok=True)
            for address in addresses:
                notes.append(self._incoming / f"{self.new_name()}-{address}")
                os.close(os.open(notes[-1], os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    async def _lock(self, shelf: str) -> int:
        # Asked again and again rather than awaited in a thread, which could not be given up.
        opened: list[int] = []
        try:
            await in_thread(lambda stop: opened.append(self._open_lock(shelf)))
            for _ in range(int(LOCK_TIMEOUT_S / _LOCK_EVERY_S)):
                if _try_lock(opened[0]):
                    return opened.pop()
                await asyncio.sleep(_LOCK_EVERY_S)
        finally:
            for file in opened:
                os.close(file)
        raise Unavailable("Another upload holds the store for too long; try again.", retry_after_s=5)

    def _open_lock(self, shelf: str) -> int:
        with storage_errors():
            self._locks.mkdir(parents=True, exist_ok=True)
            return os.open(self._locks / shelf, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _remove(paths: Collection[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _become_owner(owners: Path) -> tuple[str, int]:
    with storage_errors():
        owners.mkdir(parents=True, exist_ok=True)
        while True:
            name = secrets.token_hex(6)
            file = os.open(owners / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # Whoever clears up may have found it in the moment before it was locked.
            if _try_lock(file) and _is_there(owners / name, file):
                return name, file
            os.close(file)


def _take_over(path: Path) -> int | None:
    """The lock of an owner that is no more, open; None for one that lives."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _try_lock(file):
        return file
    os.close(file)
    return None


def _is_there(path: Path, file: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def _retire(path: Path, file: int) -> None:
    path.unlink(missing_ok=True)
    os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
