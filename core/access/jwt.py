"""The signed tokens of sign-in sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from jose import JWTError, jwt

from core.errors import Unauthenticated

ALGORITHM = "HS256"
ISSUER = "pulvinar"
AUDIENCE = "pulvinar-internal"
_MAX_LENGTH = 2048
_REQUIRED = {f"require_{claim}": True for claim in ("exp", "iat", "iss", "aud", "sub", "jti")}


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a token says that it speaks for."""

    user_id: int
    session_id: str


def sign(claims: Claims, key: bytes, expires_at: datetime, kid: str = "0") -> str:
    """A token that holds until `expires_at`, and says which key it was signed with."""
    body = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(claims.user_id),
        "jti": claims.session_id,
        "iat": int(datetime.now(UTC).timestamp()),
        "exp": int(expires_at.timestamp()),
    }
    return str(jwt.encode(body, key, algorithm=ALGORITHM, headers={"kid": kid}))


def kid_of(token: str) -> str:
    """Which key a token says it was signed with; empty where it does not say. Raises Unauthenticated."""
    if len(token) > _MAX_LENGTH:
        raise not_signed_in()
    try:
        kid = jwt.get_unverified_header(token).get("kid", "")
    except (JWTError, ValueError) as error:
        raise not_signed_in() from error
    return kid if isinstance(kid, str) else ""


def read(token: str, key: bytes) -> Claims:
    """The claims of a token that we signed and that still holds. Raises Unauthenticated."""
    if len(token) > _MAX_LENGTH:
        raise not_signed_in()
    try:
        # The algorithm is ours, never the one that the token names.
        body = jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER, options=_REQUIRED)
        return Claims(user_id=int(body["sub"]), session_id=body["jti"])
    except (JWTError, ValueError) as error:
        raise not_signed_in() from error


def not_signed_in() -> Unauthenticated:
    """The one error of every session that does not hold, whatever the reason."""
    return Unauthenticated("You are not signed in, or the session has ended; sign in again.")
