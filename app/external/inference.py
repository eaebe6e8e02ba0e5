"""`POST /api/v1/inference/{model}`: the hot path, plain ASGI from the socket to the queue and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from app.errors import error_body, wire_status
from app.external.body import ClientGone, read_body
from app.external.call import is_structured, read_call
from app.external.door import Headers, allow, allow_model, charge, concurrency, identify, limit_headers
from app.external.sticky import sticky_key
from app.middleware import ANSWER_NOW, CLIENT_LEFT, DISCONNECTED, ON_DISCONNECT
from app.state import Platform
from core.errors import BadRequest, PlatformError, ShuttingDown
from core.media.tensors import tensors_to_json
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.target import Target

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/api/v1/inference/"
JSON_TYPE = (b"content-type", b"application/json")
SMALL_BODY_BYTES = 64 * 1024
"""Bodies up to this size are parsed on the event loop: a hop to a thread costs more than the parsing."""


class InferenceEndpoint:
    """The native inference call, as an ASGI application. Another wire overrides `_model` and `_infer`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        platform: Platform = scope["state"]["platform"]
        request_id: str = scope["state"]["request_id"]
        headers: Headers = []
        name = self._model(scope)
        task = asyncio.current_task()
        assert task is not None
        scope[ON_DISCONNECT] = task.cancel
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("This path takes POST.")
            record = identify(platform, scope)
            allow(record, "infer")
            allow_model(record, name)
            headers += limit_headers(charge(platform, record))
            with concurrency(platform, record):
                status, body = 200, await self._infer(platform, scope, receive, name, request_id, headers)
        except ClientGone:
            return
        except PlatformError as error:
            status, more, body = error_answer(platform, scope["path"], name, 0, request_id, error)
            headers += more
        except asyncio.CancelledError:
            if scope.get(DISCONNECTED):
                count_left(platform, name, 0)
            raise
        await _send(scope, send, status, headers, body)

    def _model(self, scope: Scope) -> str:
        name: str = scope["path"][len(PREFIX) :]
        return name

    async def _infer(
        self, platform: Platform, scope: Scope, receive: Receive, name: str, request_id: str, headers: Headers
    ) -> bytes:
        if platform.stopping:
            raise ShuttingDown("The server is stopping; try again.", retry_after_s=1)
        version = _version(scope["query_string"])
        limits = platform.settings.inference
        key = sticky_key(platform.catalogue, name, scope["headers"])
        lease = platform.catalogue.lease(name, version, key)
        async with lease as target:
            target.check_room()  # what of the body comes later is dropped as it comes
            body = await read_body(
                scope, receive, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s
            )
            request = await _read(target, _content_type(scope["headers"]), body, limits.max_items)
            request.request_id, request.deadline = request_id, lease.deadline
            result = await platform.statistics.infer(target, request)
        note_result(platform, result, lease.waited_ms)
        headers.append(JSON_TYPE)
        return await _answer(request_id, result, len(request.payloads or ()))


class MethodNotAllowed(PlatformError):
    """The path exists, but not for this method."""

    status, code = 405, "method_not_allowed"

    def headers(self) -> dict[str, str]:
        """Say which method it takes."""
        return {"Allow": "POST"}


def note_result(platform: Platform, result: InferenceResult, load_ms: float = 0.0) -> None:
    """Count an answered request in metrics and statistics, and how long it waited for its model's load."""
    timing = result.timing
    platform.traffic[result.model].note(200, timing.total, time.time())
    counts = platform.counts.of(result.model, result.version)
    counts.answered(
        timing.queue, timing.batch_wait, timing.preprocess, timing.infer, timing.postprocess, timing.total
    )
    if load_ms:
        counts.waited(load_ms)


def count_error(platform: Platform, name: str, version: int, status: int, reason: str) -> None:
    """Count a request that failed; `version` is 0 where none was at fault."""
    # Only names in service become labels: callers must not be able to grow the metrics.
    if platform.catalogue.has(name):
        platform.traffic[name].note(status, 0.0, time.time())
        platform.counts.of(name, version).ended(status, reason)


def count_left(platform: Platform, name: str, version: int) -> None:
    """Count a request whose client went away before its answer."""
    if platform.catalogue.has(name):
        platform.counts.of(name, version).ended(CLIENT_LEFT, "client_left")


def error_answer(
    platform: Platform, path: str, name: str, version: int, request_id: str, error: PlatformError
) -> tuple[int, Headers, bytes]:
    """Count an error, and say it in the words of the API that `path` belongs to."""
    status = wire_status(path, error.status)
    body = error_body(path, status, error.code, error.message, request_id)
    headers = [(key.lower().encode(), value.encode()) for key, value in error.headers().items()]
    count_error(platform, name, version, status, error.code)
    return status, [*headers, JSON_TYPE], body


def _version(query: bytes) -> int | None:
    if not query:
        return None
    values = parse_qs(query.decode("latin-1")).get("version")
    if values is None:
        return None
    if not values[0].isascii() or not values[0].isdigit() or len(values[0]) > 9:
        raise BadRequest("`version` must be a whole number.")
    return int(values[0])


def _content_type(headers: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"content-type":
            return value
    return b""


async def _read(target: Target, content_type: bytes, body: bytes, max_items: int) -> InferenceRequest:
    if len(body) <= SMALL_BODY_BYTES or not is_structured(content_type):
        return read_call(target, content_type, body, max_items=max_items)
    return await asyncio.to_thread(read_call, target, content_type, body, max_items=max_items)


async def _answer(request_id: str, result: InferenceResult, files: int) -> bytes:
    size = sum([array.nbytes for array in result.outputs.values()]) if result.outputs else 0
    if size <= SMALL_BODY_BYTES:
        return render(request_id, result, files)
    return await asyncio.to_thread(render, request_id, result, files)


def render(request_id: str, result: InferenceResult, files: int) -> bytes:
    """The JSON of an answer to so many files."""
    answer: dict[str, Any] = {
        "request_id": request_id,
        "model": result.model,
        "version": result.version,
        "task": result.task,
        **_content(result, files),
        "timing_ms": result.timing.to_json(),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _content(result: InferenceResult, files: int) -> Mapping[str, Any]:
    if result.answers is None:
        return {"outputs": tensors_to_json(result.outputs or {})}
    return result.answers[0] if files == 1 else {"results": result.answers}


async def _send(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    answer_now = scope.get(ANSWER_NOW)
    if answer_now is not None and answer_now(status, headers, body):
        return
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
