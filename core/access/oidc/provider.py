"""An OpenID provider, as far as we speak with it: its discovery document, its keys, codes for ID tokens.

OpenID Connect Discovery 1.0 and Core 1.0 (authorization code), PKCE after RFC 7636.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import orjson

from core.access.oidc.id_token import BadToken, find_key, header_of, read_id_token
from core.errors import Forbidden, Unavailable
from core.oidc_settings import OidcSettings, is_safe_url

if TYPE_CHECKING:
    import httpx

_MAX_BYTES: Final = 256 << 10
_KEPT_S: Final = 3600.0
_REFETCH_S: Final = 30.0
"""So often a token that names an unknown key makes us ask for the keys again, and a failure lets us ask again."""
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class ProviderAway(Unavailable):
    """The provider does not answer, or not as one."""


@dataclass(frozen=True, slots=True)
class _Known:
    document: dict[str, Any]
    keys: list[dict[str, Any]]
    at: float


class Provider:
    """One provider. Belongs to one event loop; what it publishes is kept for an hour, or until a key is new."""

    def __init__(self, oidc: OidcSettings) -> None:
        self._oidc = oidc
        self._known: _Known | None = None
        self._failed_at: float | None = None
        self._lock = asyncio.Lock()

    async def address(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Where a browser is sent to sign in. Raises ProviderAway."""
        document = (await self._discover()).document
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._oidc.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(self._oidc.scopes),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        endpoint = str(document["authorization_endpoint"])
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    async def claims(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> dict[str, Any]:
        """What the provider says of whoever came back with `code`. Raises ProviderAway, Forbidden."""
        known = await self._discover()
        token = await self._id_token(known.document, code, redirect_uri, verifier)
        algorithm, kid = header_of(token)
        key = find_key(known.keys, algorithm, kid)
        if key is None:
            known = await self._discover(not_before=time.monotonic() - _REFETCH_S)
            key = find_key(known.keys, algorithm, kid)
        if key is None:
            raise BadToken("The provider's token is signed with a key that it does not publish.")
        issuer = self._oidc.issuer or ""
        return read_id_token(token, key, issuer=issuer, client_id=self._oidc.client_id, nonce=nonce)

    async def _discover(self, not_before: float | None = None) -> _Known:
        """What is known, not older than an hour, nor than `not_before` (monotonic seconds)."""
        async with self._lock:
            now = time.monotonic()
            oldest = max(now - _KEPT_S, not_before or 0.0)
            if self._known is not None and self._known.at > oldest:
                return self._known
            if self._failed_at is not None and self._failed_at > now - 1:
                raise _away()  # whoever waited for the one who just tried need not wait as long again
            try:
                self._known = await self._fetch_all()
            except Unavailable:
                self._failed_at = time.monotonic()
                raise
            return self._known

    async def _fetch_all(self) -> _Known:
        issuer = self._oidc.issuer or ""
        document = await self._send("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise ProviderAway("The sign-in provider calls itself by another name than oidc.issuer.")
        if not all(isinstance(document.get(name), str) and _safe(document[name]) for name in _ENDPOINTS):
            raise ProviderAway("The sign-in provider does not say, over https, where to sign in.")
        keys = (await self._send("GET", document["jwks_uri"])).get("keys")
        if not isinstance(keys, list):
            raise ProviderAway("The sign-in provider publishes no keys.")
        return _Known(document, [key for key in keys if isinstance(key, dict)], time.monotonic())

    async def _id_token(self, document: dict[str, Any], code: str, redirect_uri: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        secret = self._oidc.client_secret.get_secret_value() if self._oidc.client_secret else ""
        methods = document.get("token_endpoint_auth_methods_supported")
        if not secret:
            form["client_id"] = self._oidc.client_id
        elif isinstance(methods, list) and "client_secret_basic" not in methods:
            form |= {"client_id": self._oidc.client_id, "client_secret": secret}
        else:  # RFC 6749, section 2.3.1: both are form-encoded first
            pair = f"{quote_plus(self._oidc.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        answer = await self._send("POST", str(document["token_endpoint"]), data=form, headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise BadToken("The provider did not say who you are: its answer has no ID token.")
        return token

    async def _send(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        import httpx  # here, so that a server without a provider does not load it

        try:
            async with (
                asyncio.timeout(self._oidc.timeout_s),
                httpx.AsyncClient(follow_redirects=False) as client,
                client.stream(method, url, timeout=self._oidc.timeout_s, **options) as response,
            ):
                body, status = await _body(response), response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise _away() from error
        if method == "POST" and status in (400, 401, 403):
            raise Forbidden("The provider did not take back the code that it had given you; sign in once more.")
        try:
            answer = orjson.loads(body) if status == 200 else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ProviderAway("The sign-in provider does not answer as it should; sign in with a password.")
        return answer


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MAX_BYTES:
            raise ProviderAway("The sign-in provider answers more than it should; sign in with a password.")
    return bytes(body)


def _safe(url: str) -> bool:
    return is_safe_url(url.partition("?")[0])


def _away() -> ProviderAway:
    return ProviderAway("The sign-in provider does not answer now; try again later, or sign in with a password.")
