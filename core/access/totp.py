"""One-time codes of an authenticator app (RFC 6238: SHA-1, 6 digits, 30 s), and codes for when it is lost."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

import pyotp

ISSUER: Final = "Pulvinar"
STEP_S: Final = 30
_DRIFT: Final = 1
"""So many steps may a clock be off, to either side."""
RECOVERY_CODES: Final = 10
_RECOVERY_BYTES: Final = 10  # 80 bits: nothing to be tried out, even by whoever has the hashes


def new_secret() -> str:
    """A secret of 160 bits in base32, as authenticator apps take it."""
    return pyotp.random_base32()


def otpauth_uri(secret: str, name: str) -> str:
    """What goes into the QR code: the secret, and whose it is."""
    return pyotp.TOTP(secret, interval=STEP_S).provisioning_uri(name=name, issuer_name=ISSUER)


def accepted_step(secret: str, code: str, now_s: float, last_step: int) -> int | None:
    """The step of time that the code belongs to; None where it is wrong, too old, or not after `last_step`.

    Who keeps the answer as the next `last_step` lets no code in twice (RFC 6238, section 5.2).
    """
    totp = pyotp.TOTP(secret, interval=STEP_S)
    present, found = int(now_s // STEP_S), None
    for step in range(present - _DRIFT, present + _DRIFT + 1):  # all of them, whichever it is: the same time
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode("utf-8", "replace")):
            found = step
    return found if found is not None and found > last_step else None


def plain_code(code: str) -> str:
    """The code without what people write into it for their eyes."""
    return code.replace(" ", "").replace("-", "").lower()


def new_recovery_codes() -> list[str]:
    """Codes that each work once in the place of the app's."""
    return [_recovery_code() for _ in range(RECOVERY_CODES)]


def hash_recovery_code(code: str) -> bytes:
    """What is kept of a recovery code: its SHA-256. It has 80 random bits and needs no slowness."""
    return hashlib.sha256(plain_code(code).encode("utf-8", "replace")).digest()


def _recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))
