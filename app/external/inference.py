"""`POST /api/v1/inference/{model}`: the hot path, plain ASGI from the socket to the queue and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from app.errors import error_body, wire_status
from app.external.body import ClientGone, read_body
from app.external.call import is_structured, read_call
from app.external.door import (
    Headers,
    allow_infer,
    allow_model,
    charge,
    concurrency,
    identify,
    limit_headers,
    priority_of,
)
from app.external.sequences import sequence_of
from app.external.sticky import sticky_key
from app.middleware import ANSWER_NOW, ANSWERED, CLIENT_LEFT, DISCONNECTED, ON_DISCONNECT, Answered
from app.state import Platform
from app.tallies import note_answer
from core.access.records import TokenRecord
from core.access.usage import NOTHING as NOTHING_TAKEN
from core.access.usage import Taken
from core.errors import BadRequest, PlatformError, ShuttingDown
from core.media.tensors import tensors_to_json
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.target import Target

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/api/v1/inference/"
JSON_TYPE = (b"content-type", b"application/json")
NOTHING: Final[Mapping[str, Any]] = {}
_CACHED: Final[Mapping[str, Any]] = {"cached": True}
_new = tuple.__new__  # in half the time of a NamedTuple's own
SMALL_BODY_BYTES = 64 * 1024
"""Bodies up to this size are parsed on the event loop: a hop to a thread costs more than the parsing."""


@dataclass(slots=True)
class Asked:
    """One call while it is answered. `name` is the model's, None while the content has yet to say which."""

    platform: Platform
    scope: Scope
    receive: Receive
    request_id: str
    name: str | None
    record: TokenRecord | None = None
    headers: Headers = field(default_factory=list)
    """Of the answer, so far."""
    let_in: bool = False
    """Whether it was charged for, so that it counts as usage."""
    taken: Taken = NOTHING_TAKEN
    bytes_in: int = 0

    async def body(self) -> bytes:
        """The whole body. Raises as `read_body`."""
        limits = self.platform.settings.inference
        body = await read_body(
            self.scope, self.receive, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s
        )
        self.bytes_in = len(body)
        return body

    def note(self, target: Target, result: InferenceResult, load_ms: float) -> None:
        """Count an answer; see `note_answer`."""
        note_answer(self.platform, target, result, load_ms)
        self.scope["state"][ANSWERED] = Answered(
            result.model, result.version, result.timing, load_ms, time.monotonic()
        )
        self.taken = taken_by(result)

    def count(self, bytes_out: int, *, failed: bool) -> None:
        """Count what the caller used, once the answer is known or given up."""
        if self.let_in and self.record is not None:
            count_usage(
                self.platform, self.record, self.name or "", self.taken, self.bytes_in, bytes_out, failed=failed
            )


class InferenceEndpoint:
    """The native inference call, as an ASGI application. Another wire overrides `_model` and `_infer`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        platform: Platform = scope["state"]["platform"]
        asked = Asked(platform, scope, receive, scope["state"]["request_id"], self._model(scope))
        task = asyncio.current_task()
        assert task is not None
        scope[ON_DISCONNECT] = task.cancel
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("This path takes POST.")
            record = asked.record = identify(platform, scope)
            allow_infer(platform, record, asked.name)
            if asked.name is not None:
                allow_model(record, asked.name)
            asked.headers += limit_headers(await charge(platform, record))
            asked.let_in = True
            with concurrency(platform, record):
                if platform.stopping:
                    raise ShuttingDown("The server is stopping; try again.", retry_after_s=1)
                status, body = 200, await self._infer(asked)
        except ClientGone:
            asked.count(0, failed=True)
            return
        except PlatformError as error:
            path, name = scope["path"], asked.name or ""
            status, more, body = error_answer(platform, path, name, 0, asked.request_id, error)
            asked.headers += more
        except asyncio.CancelledError:
            if scope.get(DISCONNECTED):
                count_left(platform, asked.name or "", 0)
            asked.count(0, failed=True)
            raise
        asked.count(len(body), failed=status != 200)
        await _send(scope, send, status, asked.headers, body)

    def _model(self, scope: Scope) -> str | None:
        name: str = scope["path"][len(PREFIX) :]
        return name

    async def _infer(self, asked: Asked) -> bytes:
        platform, scope = asked.platform, asked.scope
        assert asked.name is not None
        version = _version(scope["query_string"])
        key = sticky_key(platform.catalogue, asked.name, scope["headers"])
        lease = platform.catalogue.lease(asked.name, version, key)
        async with lease as target:
            target.check_room()  # what of the body comes later is dropped as it comes
            body = await asked.body()
            max_items = platform.settings.inference.max_items
            request = await _read(target, content_type(scope["headers"]), body, max_items)
            request.request_id, request.deadline = asked.request_id, lease.deadline
            if asked.record is not None:
                request.priority = priority_of(asked.record)
                request.sequence = sequence_of(asked.record, scope["headers"], request.parameters)
            result = await platform.statistics.infer(target, request)
        asked.note(target, result, lease.waited_ms)
        asked.headers.append(JSON_TYPE)
        return await write_result(asked.request_id, result, len(request.payloads or ()))


class MethodNotAllowed(PlatformError):
    """The path exists, but not for this method."""

    status, code = 405, "method_not_allowed"

    def headers(self) -> dict[str, str]:
        """Say which method it takes."""
        return {"Allow": "POST"}


def taken_by(result: InferenceResult) -> Taken:
    """What an answer took, for usage."""
    timing = result.timing
    return _new(Taken, (result.items, timing.tokens, timing.engine))


def count_usage(
    platform: Platform,
    record: TokenRecord,
    name: str,
    taken: Taken,
    bytes_in: int,
    bytes_out: int,
    *,
    failed: bool,
) -> None:
    """Count what a request that was let in has used."""
    # Only names in service are kept: callers must not be able to grow the tables.
    model = name if name and platform.catalogue.has(name) else ""
    platform.usage.add(record, model, taken, bytes_in, bytes_out, failed=failed)
    if record.budgets or record.owner.budgets:
        platform.limiter.use(record, *taken)


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


def content_type(headers: Headers) -> bytes:
    """The media type that a request claims for its body; empty where it claims none."""
    for name, value in headers:
        if name == b"content-type":
            return value
    return b""


async def _read(target: Target, content_type: bytes, body: bytes, max_items: int) -> InferenceRequest:
    if len(body) <= SMALL_BODY_BYTES or not is_structured(content_type):
        return read_call(target, content_type, body, max_items=max_items)
    return await asyncio.to_thread(read_call, target, content_type, body, max_items=max_items)


async def write_result(
    request_id: str, result: InferenceResult, files: int, more: Mapping[str, Any] = NOTHING
) -> bytes:
    """The JSON of an answer, written in a thread where it is long; see `render`."""
    size = sum([array.nbytes for array in result.outputs.values()]) if result.outputs else 0
    if size <= SMALL_BODY_BYTES:
        return render(request_id, result, files, more)
    return await asyncio.to_thread(render, request_id, result, files, more)


def render(request_id: str, result: InferenceResult, files: int, more: Mapping[str, Any] = NOTHING) -> bytes:
    """The JSON of an answer to so many files, with `more` fields at its end."""
    answer: dict[str, Any] = {
        "request_id": request_id,
        "model": result.model,
        "version": result.version,
        "task": result.task,
        **_content(result, files),
        "timing_ms": result.timing.to_json(),
        **(_CACHED if result.cache in ("hit", "shared") else NOTHING),
        **more,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _content(result: InferenceResult, files: int) -> Mapping[str, Any]:
    if result.answers is None:
        return {"outputs": tensors_to_json(result.outputs or {})}
    return result.answers[0] if files <= 1 == len(result.answers) else {"results": result.answers}


async def _send(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    answer_now = scope.get(ANSWER_NOW)
    if answer_now is not None and answer_now(status, headers, body):
        return
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
