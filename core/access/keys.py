"""Secrets that the server makes for itself and keeps in files."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from core.settings import InvalidSettings


def load_or_create_key(directory: Path, name: str, nbytes: int = 32) -> bytes:
    """The key `name`, made at the first call; the same for all processes, readable by the server's user alone.

    Blocks. Raises InvalidSettings where the file holds something else than `nbytes` bytes.
    """
    path = directory / name
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        create_file(path, secrets.token_bytes(nbytes))
        key = path.read_bytes()
    if len(key) != nbytes:
        raise InvalidSettings(f"The key file {path} is damaged; remove it to have a new one made.")
    return key


def create_file(path: Path, key: bytes) -> None:
    """Put a whole key in place, unless another process was first: then theirs stays. Mode 0600, folder 0700."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
