from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import TooLarge
from core.kill_points import reach
from core.store.disk import require_room, storage_errors, sync_path

_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """A finished upload: where it lies for now, the SHA-256 of its bytes in hex, and how many there are."""

    path: Path
    sha256: str
    size_bytes: int


class Upload:
    """One upload on its way to a file that is removed again unless `finish` is reached.

    Chunks are gathered to blocks of 1 MiB, which threads hash and write, so that small chunks stay cheap.
    """

    def __init__(self, path: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._pending = bytearray()
        self._size_bytes = 0
        self._digest = hashlib.sha256()
        self._finished = False
        # A cancelled `write` leaves its thread running: the lock keeps `abandon` from closing under it.
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    async def open(self) -> None:
        """Create the file. Raises StorageFull."""
        await asyncio.to_thread(self._open)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Raises TooLarge past the cap, StorageFull when the disk has no room."""
        self._size_bytes += len(chunk)
        if self._size_bytes > self._max_bytes:
            raise TooLarge(f"The upload is over the cap of {self._max_bytes} bytes (store.max_upload_bytes).")
        self._pending += chunk
        if len(self._pending) >= _BLOCK_BYTES:
            await self._flush()

    async def finish(self) -> Received:
        """Write out and fsync what came. From here on the file belongs to the caller. Raises StorageFull."""
        await self._flush()
        await asyncio.to_thread(self._close, True)
        self._finished = True
        reach("upload.received")
        return Received(self._path, self._digest.hexdigest(), self._size_bytes)

    async def abandon(self) -> None:
        """Remove the file unless it was finished; safe to call at any time, also while being cancelled."""
        if not self._finished:
            await asyncio.shield(asyncio.to_thread(self._discard))

    async def _flush(self) -> None:
        block, self._pending = bytes(self._pending), bytearray()
        if block:
            await asyncio.to_thread(self._append, block)

    def _open(self) -> None:
        with self._lock, storage_errors():
            require_room(self._path.parent, 0, self._min_free_bytes)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)

    def _append(self, block: bytes) -> None:
        with self._lock, storage_errors():
            if self._descriptor is None:
                return
            require_room(self._path.parent, len(block), self._min_free_bytes)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._digest.update(block)

    def _close(self, sync: bool) -> None:
        with self._lock, storage_errors():
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is None:
                return
            try:
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if sync:
            sync_path(self._path.parent)

    def _discard(self) -> None:
        self._close(False)
        self._path.unlink(missing_ok=True)
