"""Marks by which the server knows again what it gave to a browser."""

from __future__ import annotations

import hashlib
import hmac


class Seals:
    """Keyed hashes (HMAC-SHA-256). `purpose` keeps a mark made for one thing from being used for another."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"pulvinar seals", hashlib.sha256)

    def make(self, purpose: str, text: str) -> str:
        """The mark of `text`, 64 hexadecimal digits."""
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def fits(self, purpose: str, text: str, seal: str) -> bool:
        """Whether `seal` was made here for that purpose and text; takes the same time either way."""
        return hmac.compare_digest(self.make(purpose, text).encode(), seal.encode())
