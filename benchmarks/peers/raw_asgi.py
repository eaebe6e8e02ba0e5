"""The least there can be: an ASGI function that calls ONNX Runtime inline. No routing, checks, limits or queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from work import Classifier, Tiny

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

tiny, classifier = Tiny(), Classifier()
HEADERS = [(b"content-type", b"application/json")]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """`POST /tiny`, `POST /classify`; anything else is answered with `{}`."""
    if scope["type"] != "http":
        return
    body = await _read(receive)
    if scope["path"] == "/tiny":
        answer: dict[str, Any] = tiny.answer(orjson.loads(body)["inputs"])
    elif scope["path"] == "/classify":
        answer = classifier.answer(body)
    else:
        answer = {}
    data = orjson.dumps(answer)
    headers = [*HEADERS, (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _read(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)
