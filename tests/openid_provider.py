"""A small OpenID provider in a thread: real HTTP, real keys, PKCE and client secret checked; lies when told to."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk, jwt

CLIENT = "pulvinar at work"
SECRET = "planted: oidc/secret+"
Claims = dict[str, Any]


@dataclass
class SigningKey:
    kid: str
    algorithm: str = "RS256"

    @cached_property
    def private(self) -> Any:
        if self.algorithm == "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        return rsa.generate_private_key(65537, 2048)

    @cached_property
    def pem(self) -> str:
        return self.private.private_bytes(
            forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
        ).decode()

    @cached_property
    def public_pem(self) -> str:
        return (
            self.private.public_key()
            .public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    @property
    def published(self) -> dict[str, Any]:
        made = jwk.construct(self.public_pem, self.algorithm).to_dict()
        plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in made.items()}
        return {**plain, "kid": self.kid, "use": "sig"}

    def sign(self, claims: Claims) -> str:
        return str(jwt.encode(claims, self.pem, algorithm=self.algorithm, headers={"kid": self.kid}))


@dataclass
class OpenIdProvider(AbstractContextManager["OpenIdProvider"]):
    """Signs in whoever `user` is. `alter` changes claims; `sign` makes the token of them."""

    user: Claims = field(default_factory=dict)
    alter: Callable[[Claims], None] = lambda claims: None
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey("one")])
    sign: Callable[[Claims], str] | None = None
    fetches: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def __enter__(self) -> OpenIdProvider:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches.append(self.path)
                self._answer(200, provider.documents().get(self.path, {}))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                said = {name: values[0] for name, values in form.items()}
                token = provider.redeem(said, self.headers.get("Authorization", ""))
                self._answer(*((200, {"id_token": token}) if token else (400, {"error": "invalid_grant"})))

            def _answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def documents(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            },
            "/keys": {"keys": [key.published for key in self.keys]},
        }

    def authorize(self, address: str) -> str:
        """What the user does at the provider's page: the address that the browser is sent back to."""
        parts = urlsplit(address)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def redeem(self, said: dict[str, str], authorization: str) -> str | None:
        asked = self._codes.pop(said.get("code", ""), None)
        basic = base64.b64encode(b"pulvinar+at+work:planted%3A+oidc%2Fsecret%2B").decode()
        digest = hashlib.sha256(said.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or authorization != f"Basic {basic}"
            or said["redirect_uri"] != asked["redirect_uri"]
            or base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]
        ):
            return None
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= {"sub": self.user.get("preferred_username", "nobody"), **self.user}
        self.alter(claims)
        return (self.sign or self.keys[0].sign)(claims)
