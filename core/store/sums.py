"""What the files of an artifact were when it was published: names, sizes and SHA-256, to hold them against later.

An artifact's address is the SHA-256 of what was uploaded, and a zip is not kept: its files cannot be held against
that.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import orjson

_BLOCK_BYTES = 1 << 20


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path in it. Blocks, and reads all of them."""
    return {
        str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if not path.is_dir()
    }


def write_sums(place: Path, sums: Mapping[str, str]) -> None:
    """Keep them in a file, whole or not at all. Processes and threads may keep the same ones at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    coming = place.with_name(f".{place.name}.{os.getpid()}.{threading.get_ident()}")
    coming.write_bytes(orjson.dumps(sums))
    os.replace(coming, place)


def read_sums(place: Path) -> dict[str, str] | None:
    """What was kept; None where nothing was, or where it cannot be read."""
    try:
        sums = orjson.loads(place.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return sums if isinstance(sums, dict) else None


def differences(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """What is not as it was, as ends of sentences; empty where all is. Blocks, and reads all of the files."""
    now = sums_of(folder)
    missing = [f"{name} is missing" for name in sums.keys() - now.keys()]
    other = [f"{name} holds other bytes" for name in sums.keys() & now.keys() if sums[name] != now[name]]
    more = [f"{name} was not there" for name in now.keys() - sums.keys()]
    return sorted([*missing, *other, *more])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
