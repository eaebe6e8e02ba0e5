"""A fingerprint of a server's keys, by which servers of one database find out that theirs differ."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from core.access.key_ring import facts_of, read_keys
from core.access.sealing import KEY_FILE

PRINT_LENGTH: Final = 16


def key_print(directory: Path, token_life_s: float) -> str:
    """16 hexadecimal digits over the keys that are in use; empty where there are none. Blocks.

    Of SHA-256, over keys of 256 random bits: nothing of them can be found from it, and no two rings have the same.
    Raises InvalidSettings or OSError for keys that cannot be read.
    """
    if not directory.is_dir():
        return ""
    ring = read_keys(directory)
    states = [facts.state for facts in facts_of(ring, token_life_s, time.time())]
    kept = {key.kid: key.secret for key, state in zip(ring, states, strict=True) if state != "over"}
    seal = directory / KEY_FILE
    kept[KEY_FILE] = seal.read_bytes() if seal.exists() else b""
    parts = [sha256(name.encode() + b"\0" + secret).digest() for name, secret in sorted(kept.items())]
    return sha256(b"".join(parts)).hexdigest()[:PRINT_LENGTH]
