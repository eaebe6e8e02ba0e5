"""Fetched files as one upload: a model alone as it is, one with files beside it as a zip."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Final, cast

from core.store.artifacts import ArtifactStore
from core.store.uploads import Received, Upload

_CHUNK_BYTES: Final = 1 << 20
# The same for the same files, so that they are the same artifact again.
_DATE: Final = (1980, 1, 1, 0, 0, 0)


class _Sink:
    """What a zip writes, to be taken away bit by bit."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        self._pending += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def take(self) -> bytes:
        taken, self._pending = bytes(self._pending), bytearray()
        return taken


async def bundle(store: ArtifactStore, files: Mapping[str, Path]) -> Received:
    """Bring files, by their names in the package, into the store's incoming. Raises TooLarge, StorageFull."""
    sizes = [path.stat().st_size for path in files.values()]
    async with store.receive(sum(sizes)) as upload:
        if len(files) == 1:
            await _copy(upload, *files.values())
        else:
            await _zip(upload, files)
        return await upload.finish()


async def _copy(upload: Upload, path: Path) -> None:
    with await asyncio.to_thread(path.open, "rb") as source:
        while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
            await upload.write(chunk)


async def _zip(upload: Upload, files: Mapping[str, Path]) -> None:
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        for name, path in sorted(files.items()):
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            large = path.stat().st_size >= 1 << 31
            with archive.open(info, "w", force_zip64=large) as entry, path.open("rb") as source:
                while await asyncio.to_thread(partial(_step, source, entry)):
                    await upload.write(sink.take())
            await upload.write(sink.take())
    await upload.write(sink.take())


def _step(source: IO[bytes], entry: IO[bytes]) -> bool:
    chunk = source.read(_CHUNK_BYTES)
    entry.write(chunk)
    return bool(chunk)
