from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from core.errors import NotFound, TooLarge
from core.kill_points import reach
from core.store.claims import Claims
from core.store.disk import in_thread, require_room, storage_errors, sync_path
from core.store.sums import differences, read_sums, sums_of, write_sums
from core.store.uploads import Received, Upload

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class ArtifactStore:
    """Content-addressed storage: `root/<first two>/<sha256>/` is a read-only directory with a model's files.

    What arrives or is being unpacked lies in `root/incoming/` and reaches its address by one rename, so that an
    address either holds everything or does not exist. Methods that are not coroutines and touch the disk beyond
    one `stat` are for worker threads.
    """

    def __init__(self, root: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._claims = Claims(root)
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes

    @property
    def min_free_bytes(self) -> int:
        """Disk space that uploads leave free."""
        return self._min_free_bytes

    def close(self) -> None:
        """Own nothing in `incoming/` any more."""
        self._claims.close()

    @asynccontextmanager
    async def receive(self, expected_bytes: int | None = None) -> AsyncIterator[Upload]:
        """Open an upload; left before `finish`, it leaves nothing behind.

        `expected_bytes`, as in Content-Length, lets what cannot fit be refused before the first byte.
        Raises TooLarge, StorageFull.
        """
        if expected_bytes is not None and expected_bytes > self._max_bytes:
            raise TooLarge(f"The upload is over the cap of {self._max_bytes} bytes (store.max_upload_bytes).")
        path = await asyncio.to_thread(self._new_incoming, expected_bytes or 0)
        upload = Upload(path, max_bytes=self._max_bytes, min_free_bytes=self._min_free_bytes)
        try:
            await upload.open()
            reach("upload.begun")
            yield upload
        finally:
            await upload.abandon()

    async def discard(self, received: Received) -> None:
        """Remove a finished upload that nobody will import."""
        await asyncio.to_thread(received.path.unlink, missing_ok=True)

    async def publish(self, staged: Path, sha256: str) -> Path:
        """Move a staged directory to its address; the same bytes are kept once. Raises StorageFull."""
        return await in_thread(lambda stop: self.publish_staged(staged, sha256))

    async def remove(self, sha256: str) -> None:
        """Remove an artifact, at once out of its address and then from the disk; no error when it is not there."""
        await asyncio.to_thread(self._remove, sha256)

    async def sweep_incoming(self, older_than_s: float) -> int:
        """Remove what nobody has touched in `incoming/` for that long; returns how many things."""
        return await asyncio.to_thread(self._sweep, time.time() - older_than_s)

    async def clear_half_done(self) -> None:
        """Remove what in `incoming/` belongs to no process that lives, but for notes of what was being changed."""
        await asyncio.to_thread(lambda: self._clear(self._claims.left_by_the_dead()))

    def changing(self, addresses: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Nobody else adds or removes these artifacts meanwhile; see Claims.changing."""
        return self._claims.changing(addresses)

    async def clear_after_the_dead(self, forget: Callable[[str], Awaitable[None]]) -> int:
        """Remove what processes that are no more have left in `incoming/`; returns how many things.

        `forget` is called for each address that they were changing: the artifact may be there without its row.
        """
        dead = await asyncio.to_thread(self._claims.find_dead)
        try:
            for address in dead.addresses:
                await forget(address)
            await asyncio.to_thread(self._clear, dead.left)
        finally:
            await asyncio.to_thread(self._claims.bury, dead)
        return len(dead.left)

    def path(self, sha256: str) -> Path:
        """Where an artifact lies or would lie. Raises NotFound when `sha256` is not one."""
        if not _SHA256.fullmatch(sha256):
            raise NotFound("There is no such artifact: its address is not a SHA-256.")
        return self._root / sha256[:2] / sha256

    def exists(self, sha256: str) -> bool:
        """Whether the artifact is in the store."""
        return self.path(sha256).is_dir()

    def addresses(self) -> Iterator[str]:
        """Every artifact's SHA-256, in no order."""
        for shelf in self._root.glob("[0-9a-f][0-9a-f]"):
            yield from (entry.name for entry in shelf.iterdir() if _SHA256.fullmatch(entry.name))

    def stage(self) -> Path:
        """A fresh directory to fill and then publish or `drop`. Raises StorageFull."""
        with storage_errors():
            path = self._new_incoming(0)
            path.mkdir(mode=0o700)
        return path

    def drop(self, staged: Path) -> None:
        """Remove a staged directory, whatever is in it; no error when it is gone."""
        for directory, _, _ in os.walk(staged):
            Path(directory).chmod(0o700)  # a read-only directory lets nobody but root remove its entries
        shutil.rmtree(staged, ignore_errors=True)

    def publish_staged(self, staged: Path, sha256: str) -> Path:
        """The blocking half of `publish`."""
        target = self.path(sha256)
        with storage_errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            _seal(staged)
            if not target.exists():
                write_sums(self._sums(sha256), sums_of(staged))
            try:
                staged.rename(target)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                self.drop(staged)
            # Only now: a directory that is not writable cannot be moved to another parent.
            target.chmod(0o555)
            for directory in (target, target.parent, self._root):
                sync_path(directory)
        return target

    def differences(self, sha256: str) -> list[str]:
        """What of an artifact is not as it was published, as ends of sentences. Blocks, and reads all of it.

        Of one that was published before sums were kept, nothing is known, and nothing is found.
        """
        sums = read_sums(self._sums(sha256))
        return [] if sums is None else differences(self.path(sha256), sums)

    def half_done(self) -> list[Path]:
        """What in `incoming/` belongs to no process that lives. Blocks."""
        return self._claims.left_by_the_dead()

    def is_being_changed(self, sha256: str) -> bool:
        """Whether anybody has begun to add or to remove this artifact. Blocks."""
        return self._claims.is_being_changed(sha256)

    def _sums(self, sha256: str) -> Path:
        return self._root / "sums" / sha256

    def _new_incoming(self, size_bytes: int) -> Path:
        with storage_errors():
            self._incoming.mkdir(parents=True, exist_ok=True)
            require_room(self._incoming, size_bytes, self._min_free_bytes)
            return self._incoming / self._claims.new_name()

    def _remove(self, sha256: str) -> None:
        target = self.path(sha256)
        self._sums(sha256).unlink(missing_ok=True)
        grave = self._incoming / self._claims.new_name()
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            target.chmod(0o700)
            target.rename(grave)
        except FileNotFoundError:
            return
        sync_path(target.parent)
        reach("remove.unnamed")
        self.drop(grave)

    def _sweep(self, before: float) -> int:
        if not self._incoming.is_dir():
            return 0
        stale = [entry for entry in self._incoming.iterdir() if _last_touched(entry) < before]
        self._clear(stale)
        return len(stale)

    def _clear(self, entries: Collection[Path]) -> None:
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                self.drop(entry)
            else:
                entry.unlink(missing_ok=True)


def _seal(staged: Path) -> None:
    """Make everything below `staged` read-only and have it on the disk."""
    for directory, _, files in os.walk(staged, topdown=False):
        for file in files:
            path = Path(directory, file)
            path.chmod(0o444)
            sync_path(path)
        if Path(directory) != staged:
            Path(directory).chmod(0o555)
        sync_path(Path(directory))


def _last_touched(entry: Path) -> float:
    try:
        times = [entry.lstat().st_mtime]
        times.extend(Path(where, name).lstat().st_mtime for where, _, names in os.walk(entry) for name in names)
    except FileNotFoundError:
        return time.time()  # just moved on by its owner
    return max(times)
