"""ID tokens of an OpenID provider, checked after OpenID Connect Core 1.0, section 3.1.3.7."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

from jose import JWTError, jwt

from core.errors import Forbidden

KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC"}
"""The algorithms that are let in, and the keys that each takes. A key is never used for another algorithm."""
_MAX_LENGTH: Final = 64 << 10
_LEEWAY_S: Final = 60
_REQUIRED: Final = {f"require_{claim}": True for claim in ("exp", "iat", "iss", "aud", "sub")}
# The code flow hands the ID token over directly; no access token is used that `at_hash` could speak of.
_OPTIONS: Final = {**_REQUIRED, "verify_at_hash": False, "leeway": _LEEWAY_S}


class BadToken(Forbidden):
    """An ID token that is not to be believed; the message says why, in words."""


def header_of(token: str) -> tuple[str, str]:
    """The algorithm that a token names, one of KEY_TYPES, and its key's id, or an empty one. Raises BadToken."""
    try:
        header = jwt.get_unverified_header(token) if len(token) <= _MAX_LENGTH else {}
    except (JWTError, ValueError) as error:
        raise BadToken("The provider's answer is no signed token.") from error
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if algorithm not in KEY_TYPES:
        raise BadToken("The provider's token is not signed with RS256 or ES256.")
    return str(algorithm), kid if isinstance(kid, str) else ""


def find_key(keys: list[dict[str, Any]], algorithm: str, kid: str) -> dict[str, Any] | None:
    """The key that signs with `algorithm` and is called `kid`; the only one of its kind where that is empty."""
    fitting = [
        key
        for key in keys
        if key.get("kty") == KEY_TYPES[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (not kid or key.get("kid") == kid)
    ]
    return fitting[0] if len(fitting) == 1 else None


def read_id_token(
    token: str, key: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str
) -> dict[str, Any]:
    """The claims of a token that was made by `issuer`, for us, for this very sign-in. Raises BadToken."""
    algorithm, _ = header_of(token)
    try:
        claims = jwt.decode(
            token, dict(key), algorithms=[algorithm], audience=client_id, issuer=issuer, options=_OPTIONS
        )
    except (JWTError, ValueError) as error:
        raise BadToken("The provider's token is not valid: " + _reason(error)) from error
    audience, party = claims["aud"], claims.get("azp", client_id)
    if party != client_id or (isinstance(audience, list) and len(audience) > 1 and "azp" not in claims):
        raise BadToken("The provider's token was made for another application.")
    if not hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
        raise BadToken("The provider's token belongs to another sign-in.")
    if not 0 < len(claims["sub"]) <= 255:
        raise BadToken("The provider's token names nobody.")
    return dict(claims)


def _reason(error: Exception) -> str:
    text = str(error).lower()
    for word, said in (("expired", "it has expired."), ("audience", "it was made for another application.")):
        if word in text:
            return said
    return "it is from another issuer." if "issuer" in text else "its signature or its claims are wrong."
