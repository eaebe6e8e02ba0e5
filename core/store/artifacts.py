from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from core.errors import NotFound, TooLarge
from core.store.disk import require_room, storage_errors, sync_path
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
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes

    @property
    def min_free_bytes(self) -> int:
        """Disk space that uploads leave free."""
        return self._min_free_bytes

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
            yield upload
        finally:
            await upload.abandon()

    async def discard(self, received: Received) -> None:
        """Remove a finished upload that nobody will import."""
        await asyncio.to_thread(received.path.unlink, missing_ok=True)

    async def publish(self, staged: Path, sha256: str) -> Path:
        """Move a staged directory to its address; the same bytes are kept once. Raises StorageFull."""
        return await asyncio.to_thread(self.publish_staged, staged, sha256)

    async def remove(self, sha256: str) -> None:
        """Remove an artifact, at once out of its address and then from the disk; no error when it is not there."""
        await asyncio.to_thread(self._remove, sha256)

    async def sweep_incoming(self, older_than_s: float) -> int:
        """Remove what an abrupt end left in `incoming/`, untouched for that long; returns how many things."""
        return await asyncio.to_thread(self._sweep, time.time() - older_than_s)

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

    def _new_incoming(self, size_bytes: int) -> Path:
        with storage_errors():
            self._incoming.mkdir(parents=True, exist_ok=True)
            require_room(self._incoming, size_bytes, self._min_free_bytes)
        return self._incoming / secrets.token_hex(16)

    def _remove(self, sha256: str) -> None:
        target = self.path(sha256)
        grave = self._incoming / secrets.token_hex(16)
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            target.chmod(0o700)
            target.rename(grave)
        except FileNotFoundError:
            return
        sync_path(target.parent)
        self.drop(grave)

    def _sweep(self, before: float) -> int:
        if not self._incoming.is_dir():
            return 0
        stale = [entry for entry in self._incoming.iterdir() if _last_touched(entry) < before]
        for entry in stale:
            if entry.is_dir() and not entry.is_symlink():
                self.drop(entry)
            else:
                entry.unlink(missing_ok=True)
        return len(stale)


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
