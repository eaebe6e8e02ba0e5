"""Secrets that must be read again, kept in the database so that the database alone does not give them away."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE: Final = "seal.key"
_NONCE_BYTES: Final = 12


class Unreadable(Exception):
    """It was sealed with another key, for something else, or is damaged."""


class Sealer:
    """Seals with AES-256-GCM under a key that lies beside the database, not in it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: str, purpose: str) -> bytes:
        """The secret, readable with this key and for this purpose alone: a row's is of no use in another row."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), purpose.encode())

    def unseal(self, sealed: bytes, purpose: str) -> str:
        """The secret. Raises Unreadable."""
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise Unreadable(purpose) from error
        return plain.decode()
