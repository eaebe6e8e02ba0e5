"""The door of the external API: which token, and may it do this, now, from here.

All in memory: no SQL and no waiting between the socket and the queue.
"""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from app.state import Platform
from core.access.limits import LimitState
from core.access.records import TokenRecord
from core.errors import Forbidden, LimitExceeded, Unauthenticated
from core.serving.catalogue import no_such_model

Headers = list[tuple[bytes, bytes]]


class RateUsedUp(LimitExceeded):
    """A token's rate is used up; the headers say where it stands."""

    def __init__(self, error: LimitExceeded, state: LimitState | None) -> None:
        super().__init__(error.message, retry_after_s=error.retry_after_s)
        self._state = state

    def headers(self) -> dict[str, str]:
        """`Retry-After` and `X-RateLimit-*`."""
        told = {name.decode(): value.decode() for name, value in limit_headers(self._state)}
        return {**super().headers(), **told}


def secret_of(headers: Headers) -> bytes:
    """The token in `X-Access-Token` or `Authorization: Bearer`. Raises Unauthenticated when there is none."""
    for name, value in headers:
        if name == b"x-access-token":
            return value.strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    raise Unauthenticated("Send an access token in the X-Access-Token header, or as Authorization: Bearer.")


def identify(platform: Platform, scope: MutableMapping[str, Any]) -> TokenRecord:
    """The caller's token, valid and used from an address that it allows."""
    record = platform.tokens.lookup(secret_of(scope["headers"]))
    if record.ip_allow is not None and not _address_allowed(record, scope):
        raise Forbidden("This access token may not be used from this address.")
    platform.tokens.note_used(record.id)
    return record


def allow(record: TokenRecord, operation: str) -> None:
    """Raise Forbidden when the token is not for this operation."""
    if not record.allows_operation(operation):
        raise Forbidden(f"This access token does not allow the operation {operation!r}.")


def allow_model(record: TokenRecord, model: str) -> None:
    """Raise for a model outside the token's patterns: to this caller, it does not exist."""
    if not record.allows_model(model):
        raise no_such_model(model)


def charge(platform: Platform, record: TokenRecord) -> LimitState | None:
    """Count one request against the token's rate. Raises RateUsedUp."""
    try:
        return platform.limiter.hit(record)
    except LimitExceeded as error:
        raise RateUsedUp(error, platform.limiter.state(record)) from error


class _Place:
    """One of a token's `max_concurrency` places, held while its block runs."""

    __slots__ = ("_in_flight", "_token")

    def __init__(self, in_flight: MutableMapping[int, int], token: int) -> None:
        self._in_flight, self._token = in_flight, token

    def __enter__(self) -> None:
        self._in_flight[self._token] += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight[self._token] -= 1
        if not self._in_flight[self._token]:
            del self._in_flight[self._token]


_NO_LIMIT: nullcontext[None] = nullcontext()


def concurrency(platform: Platform, record: TokenRecord) -> AbstractContextManager[None]:
    """Hold one of the token's `max_concurrency` places. Raises LimitExceeded when all are taken."""
    if record.max_concurrency is None:
        return _NO_LIMIT
    if platform.in_flight[record.id] >= record.max_concurrency:
        raise LimitExceeded(
            f"This access token allows {record.max_concurrency} requests at once.", retry_after_s=1
        )
    return _Place(platform.in_flight, record.id)


def limit_headers(state: LimitState | None) -> list[tuple[bytes, bytes]]:
    """`X-RateLimit-*` of a limited token."""
    if state is None:
        return []
    return [
        (b"x-ratelimit-limit", str(state.limit).encode()),
        (b"x-ratelimit-remaining", str(state.remaining).encode()),
        (b"x-ratelimit-reset", str(round(state.reset_epoch_s)).encode()),
    ]


def _address_allowed(record: TokenRecord, scope: MutableMapping[str, Any]) -> bool:
    client = scope.get("client")
    if not client:
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return any(address in network for network in record.ip_allow or ())
