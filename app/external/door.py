"""The door of the external API: which token, and may it do this, now, from here.

All in memory: no SQL and no waiting between the socket and the queue.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from app.middleware import client_of
from app.state import Platform
from core.access.limits import RateLimiter
from core.access.places import Place
from core.access.records import TokenRecord
from core.access.windows import LimitState
from core.errors import Forbidden, Unauthenticated
from core.serving.catalogue import no_such_model
from core.serving.request import DEFAULT_PRIORITY

Headers = list[tuple[bytes, bytes]]


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
    return recognise(platform, scope, secret_of(scope["headers"]))


def admit(platform: Platform, scope: MutableMapping[str, Any], model: str) -> TokenRecord:
    """The caller's token, valid, used from where it may be, and for this model: everything but its limits.

    As the rules about addresses, `identify`, `allow` and `allow_model`, which say what is wrong, if anything is.
    """
    client = scope["client"]
    address = client[0] if client else ""
    platform.ip_rules.check("external", address)
    record = platform.tokens.lookup(secret_of(scope["headers"]))
    if record.owner.disabled or not record.may_infer(model, address):
        record = identify(platform, scope)
        allow(record, "infer")
        allow_model(record, model)
    platform.tokens.note_used(record.id)
    return record


def recognise(platform: Platform, scope: MutableMapping[str, Any], secret: bytes) -> TokenRecord:
    """The token with that secret, valid and used from an address that it allows.

    Raises Unauthenticated or Forbidden.
    """
    record = platform.tokens.lookup(secret)
    if record.owner.disabled:
        raise Forbidden("The tenant of this access token is disabled.")
    if record.ip_allow is not None and not record.allows_address(client_of(scope)):
        raise Forbidden("This access token may not be used from this address.")
    platform.tokens.note_used(record.id)
    return record


def allow(record: TokenRecord, operation: str) -> None:
    """Raise Forbidden when the token is not for this operation."""
    if not record.allows_operation(operation):
        raise Forbidden(f"This access token does not allow the operation {operation!r}.")


def allow_infer(platform: Platform, record: TokenRecord, name: str | None) -> None:
    """Raise Forbidden when the token may not call; `pipelines` is enough to call a pipeline."""
    if name is None or not (record.allows_operation("pipelines") and platform.pipelines.has(name)):
        allow(record, "infer")


def allow_model(record: TokenRecord, model: str) -> None:
    """Raise for a model outside the token's patterns, or not its tenant's: to this caller, it does not exist."""
    if not record.allows_model(model):
        raise no_such_model(model)


def priority_of(record: TokenRecord) -> int:
    """That of the token's requests which name none."""
    return DEFAULT_PRIORITY if record.priority is None else record.priority


def counted_elsewhere(platform: Platform, scope: MutableMapping[str, Any]) -> bool:
    """Whether the caller's rate is counted where an answer must be waited for."""
    if not platform.limiter.remote:
        return False
    try:
        return platform.limiter.is_elsewhere(platform.tokens.lookup(secret_of(scope["headers"])))
    except Unauthenticated:
        return False  # whoever takes the call says so


async def charge(platform: Platform, record: TokenRecord) -> LimitState | None:
    """Count one request against the token's rate, wherever that is counted. Raises LimitExceeded."""
    return await platform.limiter.hit_anywhere(record)


class _Place:
    """One of the `max_concurrency` places of a token and its tenant, held while its block runs."""

    __slots__ = ("_limiter", "_taken")

    def __init__(self, limiter: RateLimiter, taken: Sequence[Place]) -> None:
        self._limiter, self._taken = limiter, taken

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._limiter.give_back_place(self._taken)


_NO_LIMIT: nullcontext[None] = nullcontext()


def concurrency(platform: Platform, record: TokenRecord) -> AbstractContextManager[None]:
    """Take one of the `max_concurrency` places of the token and its tenant, to be left.

    Raises LimitExceeded when all are taken.
    """
    if record.max_concurrency is None and record.owner.max_concurrency is None:
        return _NO_LIMIT
    taken = platform.limiter.take_place(record)
    return _Place(platform.limiter, taken) if taken else _NO_LIMIT


def limit_lines(state: LimitState) -> bytes:
    """The same as they are written."""
    return b"x-ratelimit-limit: %d\r\nx-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n" % state


def limit_headers(state: LimitState | None) -> list[tuple[bytes, bytes]]:
    """`X-RateLimit-*` of a limited token."""
    if state is None:
        return []
    return [
        (b"x-ratelimit-limit", b"%d" % state.limit),
        (b"x-ratelimit-remaining", b"%d" % state.remaining),
        (b"x-ratelimit-reset", b"%d" % state.reset_epoch_s),
    ]
