"""The files of samples: plain, read-only, each under the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from core.errors import NotFound
from core.store.disk import require_room, storage_errors


class SampleStore:
    """`root/<first two>/<sha256>` is one sample's bytes. Every method blocks and is for worker threads."""

    def __init__(self, root: Path, *, min_free_bytes: int) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes

    def put(self, data: bytes) -> str:
        """Keep these bytes and return their address; the same bytes are kept once. Raises StorageFull."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256)
        if target.exists():
            return sha256
        with storage_errors():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_room(target.parent, len(data), self._min_free_bytes)
            coming = target.with_name(f".{secrets.token_hex(8)}")
            try:
                coming.write_bytes(data)
                coming.chmod(0o400)
                os.replace(coming, target)
            finally:
                coming.unlink(missing_ok=True)
        return sha256

    def read(self, sha256: str) -> bytes:
        """The bytes. Raises NotFound."""
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound("The sample's file is missing; upload it again.") from error

    def remove(self, sha256: str) -> None:
        """Remove a sample's file; no error when it is not there."""
        self.path(sha256).unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a sample lies or would lie."""
        return self._root / sha256[:2] / sha256
