"""The body of an inference request: read whole, within a cap and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.middleware import BODY_NOW, content_length
from core.errors import BadRequest, TooLarge

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client went away before its body was whole; nobody reads an answer."""


async def read_body(
    scope: MutableMapping[str, Any], receive: Receive, *, max_bytes: int, timeout_s: float
) -> bytes:
    """The whole body. Raises TooLarge, BadRequest when it is too slow, or ClientGone."""
    body_now = scope.get(BODY_NOW)
    body: bytes | None = body_now() if body_now is not None else None
    if body is not None:
        if len(body) > max_bytes:
            raise TooLarge(_too_large(max_bytes))
        return body
    if content_length(scope) > max_bytes:
        raise TooLarge(_too_large(max_bytes))
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(receive, max_bytes)
    except TimeoutError as error:
        raise BadRequest(f"The body did not arrive within {timeout_s:g} seconds.") from error


async def read_head(
    scope: MutableMapping[str, Any], receive: Receive, *, max_bytes: int, timeout_s: float
) -> tuple[bytes, bool, Receive]:
    """What of the body comes first, until that is `max_bytes` or more, and whether it is all.

    The last is a `receive` that begins anew, for `read_body`. Raises BadRequest when it is too slow; ClientGone.
    """
    scope.pop(BODY_NOW, None)  # it knows nothing of what is taken here
    taken: list[MutableMapping[str, Any]] = []
    head, more = b"", True
    try:
        async with asyncio.timeout(timeout_s):
            while more and len(head) < max_bytes:
                taken.append(message := await receive())
                if message["type"] == "http.disconnect":
                    raise ClientGone
                head += message.get("body", b"")
                more = bool(message.get("more_body"))
    except TimeoutError as error:
        raise BadRequest(f"The body did not arrive within {timeout_s:g} seconds.") from error

    async def again() -> MutableMapping[str, Any]:
        return taken.pop(0) if taken else await receive()

    return head, not more, again


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(_too_large(max_bytes))
        if not message.get("more_body"):
            return chunk if not chunks else b"".join([*chunks, chunk])
        chunks.append(chunk)


def _too_large(max_bytes: int) -> str:
    return f"The body is larger than the {max_bytes / (1 << 20):g} MiB that one request may have."
