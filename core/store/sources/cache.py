"""`models_cache/`: what was fetched before, by its content, so that it is fetched once and can be had offline."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from core.errors import Conflict, TooLarge
from core.store.disk import require_room, storage_errors, sync_path

_KEY: Final = re.compile(r"[0-9a-f]{64}|git-[0-9a-f]{40}")
_MAX_LISTINGS: Final = 1000


class ModelsCache:
    """Files by key: the SHA-256 of their bytes in hex, or `git-` and git's SHA-1 of them.

    `blobs/` holds whole files, `partial/` what has come so far of others, `listings/` what a source was found to
    hold. Blobs and partial files together stay within `max_bytes`: the longest unused go first. All methods block
    for a moment and are for worker threads.
    """

    def __init__(self, root: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self._blobs = root / "blobs"
        self._partial = root / "partial"
        self._listings = root / "listings"
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes

    def find(self, key: str) -> Path | None:
        """The whole file with that key, which counts as used now; None where it is not here."""
        path = self._blobs / _checked(key)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    @contextmanager
    def partial(self, key: str) -> Iterator[Path]:
        """Where the bytes of a file gather; held against all others, and kept until `keep` for a later try.

        Raises Conflict while another holds it, StorageFull.
        """
        self._make()
        path = self._partial / _checked(key)
        with storage_errors():
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("This file is being fetched already; try again once it is here.") from None
            yield path
        finally:
            os.close(descriptor)

    def keep(self, key: str) -> Path:
        """Turn the partial file, now whole and checked, into a blob."""
        target = self._blobs / _checked(key)
        with storage_errors():
            partial = self._partial / key
            partial.chmod(0o444)
            sync_path(partial)
            partial.rename(target)
            sync_path(self._blobs)
        return target

    def drop(self, key: str) -> None:
        """Forget a file that turned out not to be what its key says."""
        (self._blobs / _checked(key)).unlink(missing_ok=True)
        (self._partial / key).unlink(missing_ok=True)

    def make_room(self, size_bytes: int, needed: frozenset[str] = frozenset()) -> None:
        """Remove what was longest unused until `size_bytes` more fit; `needed` keys stay.

        Raises TooLarge where they never can, StorageFull.
        """
        self._make()
        held = sorted(self._held(), key=lambda entry: entry[0])
        total = sum(size for _, size, _ in held)
        for _, size, path in held:
            if total + size_bytes <= self._max_bytes:
                break
            if path.name not in needed and not _in_use(path):
                path.unlink(missing_ok=True)
                total -= size
        if total + size_bytes > self._max_bytes:
            raise TooLarge(
                f"The cache of models has no room for {size_bytes} bytes more; its cap is {self._max_bytes} "
                "(sources.cache_bytes)."
            )
        require_room(self._blobs, size_bytes, self._min_free_bytes)

    def remember(self, name: str, value: Any) -> None:
        """Keep what a source was found to hold; `value` is of JSON's types."""
        self._make()
        with storage_errors():
            fresh = self._listings / f".{secrets.token_hex(8)}"
            fresh.write_text(json.dumps(value), encoding="utf-8")
            fresh.rename(self._listings / _hashed(name))
        entries = sorted(self._listings.iterdir(), key=_last_used)
        for entry in entries[: max(0, len(entries) - _MAX_LISTINGS)]:
            entry.unlink(missing_ok=True)

    def recall(self, name: str) -> Any:
        """What was remembered under that name; None where nothing was."""
        try:
            return json.loads((self._listings / _hashed(name)).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def _make(self) -> None:
        with storage_errors():
            for directory in (self._blobs, self._partial, self._listings):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _held(self) -> Iterator[tuple[float, int, Path]]:
        for directory in (self._blobs, self._partial):
            for path in directory.iterdir():
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                yield state.st_mtime, state.st_size, path


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError("not a key of the cache")
    return key


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _in_use(path: Path) -> bool:
    """Whether somebody holds a partial file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
