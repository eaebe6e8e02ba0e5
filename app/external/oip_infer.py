"""`POST /v2/models/{model}[/versions/{version}]/infer`: the hot path of the Open Inference Protocol v2."""

from __future__ import annotations

import asyncio
import time

from app.external.body import read_head
from app.external.door import priority_of
from app.external.inference import SMALL_BODY_BYTES, Asked, InferenceEndpoint, Scope
from app.external.oip_answer import render_infer
from app.external.oip_encoding import MIN_BYTES, choose_encoding, compress, decompress, read_encoding
from app.external.oip_models import version_number
from app.external.oip_request import OipCall, read_infer, read_timeout_s
from app.external.sequences import part_of
from app.external.sticky import sticky_key
from core.errors import BadRequest
from core.serving.deployment import Deployment
from core.serving.request import DEFAULT_PRIORITY, InferenceRequest, InferenceResult
from core.serving.target import Target
from core.serving.waking_lease import WakingLease

Headers = list[tuple[bytes, bytes]]

HEADER_LENGTH = b"inference-header-content-length"


class OipInferEndpoint(InferenceEndpoint):
    """The protocol's inference call; the door, the counts and the errors are those of the native one."""

    def _model(self, scope: Scope) -> str:
        name: str = scope["path_params"]["model"]
        return name

    async def _infer(self, asked: Asked) -> bytes:
        platform, scope = asked.platform, asked.scope
        assert asked.name is not None
        sent = {key: value for key, value in scope["headers"] if key in _OURS}
        version = version_number(scope["path_params"].get("version"))
        key = sticky_key(platform.catalogue, asked.name, scope["headers"])
        began = time.monotonic()
        lease = platform.catalogue.lease(asked.name, version, key)
        if isinstance(lease, WakingLease) and not sent.get(b"content-encoding"):
            lease.shorten(await _asked_timeout_s(asked, sent))
        async with lease as target:
            target.check_room()  # what of the body comes later is dropped as it comes
            body = await asked.body()
            call = await _read(target, sent, body, platform.settings.inference.max_body_bytes)
            del body
            result = await platform.statistics.infer(target, _request(target, call, asked, began, lease.deadline))
        asked.note(target, result, lease.waited_ms)
        return await _answer(call, result, choose_encoding(sent.get(b"accept-encoding", b"")), asked.headers)


async def _asked_timeout_s(asked: Asked, sent: dict[bytes, bytes]) -> float | None:
    """How long the caller would wait for the model's load, where the beginning of the body tells that."""
    header_bytes = _header_bytes(sent.get(HEADER_LENGTH))
    seconds = asked.platform.settings.inference.body_timeout_s
    head, whole, asked.receive = await read_head(
        asked.scope, asked.receive, max_bytes=SMALL_BODY_BYTES, timeout_s=seconds
    )
    return read_timeout_s(head, header_bytes, whole=whole)


_OURS = frozenset({HEADER_LENGTH, b"content-encoding", b"accept-encoding"})


def _request(target: Target, call: OipCall, asked: Asked, began: float, latest: float | None) -> InferenceRequest:
    return InferenceRequest(
        inputs=call.inputs,
        request_id=asked.request_id,
        priority=_priority(call, asked),
        deadline=_deadline(target, call.timeout_s, began, latest),
        raw=True,
        sequence=None if asked.record is None else part_of(asked.record, call.parameters),
    )


def _priority(call: OipCall, asked: Asked) -> int:
    if call.priority is not None or asked.record is None:
        return DEFAULT_PRIORITY if call.priority is None else call.priority
    return priority_of(asked.record)


def _deadline(target: Target, timeout_s: float | None, began: float, latest: float | None) -> float | None:
    """A caller may shorten the deployment's own deadline, not lengthen it.

    `latest` is the deadline of a call that had to wait for the model's load; its time counts from when it `began`.
    """
    if timeout_s is None:
        return latest
    if isinstance(target, Deployment):
        timeout_s = min(timeout_s, target.options.timeout_ms / 1000)
    return time.monotonic() + timeout_s if latest is None else min(latest, began + timeout_s)


async def _read(target: Target, sent: dict[bytes, bytes], body: bytes, max_bytes: int) -> OipCall:
    header_bytes = _header_bytes(sent.get(HEADER_LENGTH))
    coding = read_encoding(sent.get(b"content-encoding", b""))
    if not coding and len(body) <= SMALL_BODY_BYTES:
        return read_infer(target.signature, body, header_bytes)
    return await asyncio.to_thread(_unpack_and_read, target, body, coding, max_bytes, header_bytes)


def _unpack_and_read(
    target: Target, body: bytes, coding: bytes, max_bytes: int, header_bytes: int | None
) -> OipCall:
    if coding:
        body = decompress(body, coding, max_bytes)
    return read_infer(target.signature, body, header_bytes)


def _header_bytes(value: bytes | None) -> int | None:
    if value is None:
        return None
    text = value.strip()
    if not text.isdigit() or len(text) > 18:
        raise BadRequest("Inference-Header-Content-Length must be a whole number of bytes.")
    return int(text)


async def _answer(call: OipCall, result: InferenceResult, coding: bytes, headers: Headers) -> bytes:
    size = sum(array.nbytes for array in (result.outputs or {}).values())
    if size <= SMALL_BODY_BYTES and not coding:
        return _render(call, result, coding, headers)
    return await asyncio.to_thread(_render, call, result, coding, headers)


def _render(call: OipCall, result: InferenceResult, coding: bytes, headers: Headers) -> bytes:
    body, header_bytes = render_infer(call, result)
    kind = b"application/json" if header_bytes is None else b"application/octet-stream"
    headers.append((b"content-type", kind))
    if header_bytes is not None:
        headers.append((HEADER_LENGTH, str(header_bytes).encode()))
    if not coding or len(body) < MIN_BYTES:
        return body
    headers += [(b"content-encoding", coding), (b"vary", b"accept-encoding")]
    return compress(body, coding)
