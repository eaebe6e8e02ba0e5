"""`POST /predict`: what comes is looked at, and goes to the default target of its modality."""

from __future__ import annotations

import asyncio
import time

from app.external.call import Call, bind_call
from app.external.door import priority_of
from app.external.inference import (
    JSON_TYPE,
    SMALL_BODY_BYTES,
    Asked,
    InferenceEndpoint,
    Scope,
    content_type,
    write_result,
)
from app.external.modality import read_by_content
from app.external.sequences import sequence_of
from app.external.sticky import sticky_key
from app.state import Platform
from core.access.records import TokenRecord
from core.errors import ModelNotFound


class PredictEndpoint(InferenceEndpoint):
    """The native call without a name. The door, the counts and the errors are those of the call with one."""

    def _model(self, scope: Scope) -> str | None:
        return None

    async def _infer(self, asked: Asked) -> bytes:
        platform, scope, record = asked.platform, asked.scope, asked.record
        assert record is not None
        body = await asked.body()
        began = time.monotonic()
        max_items = platform.settings.inference.max_items
        modality, call = await _read(content_type(scope["headers"]), body, max_items)
        del body
        name = asked.name = choose_target(platform, record, modality)
        lease = platform.catalogue.lease(name, None, sticky_key(platform.catalogue, name, scope["headers"]))
        async with lease as target:
            target.check_room()
            request = bind_call(target, call, max_items=max_items)
            request.request_id, request.deadline = asked.request_id, lease.deadline
            request.priority = priority_of(record)
            request.sequence = sequence_of(record, scope["headers"], request.parameters)
            result = await platform.statistics.infer(target, request)
        asked.note(target, result, lease.waited_ms)
        asked.headers.append(JSON_TYPE)
        latency_ms = round((time.monotonic() - began) * 1e6) / 1000
        more = {"modality": modality, "latency_ms": latency_ms}
        return await write_result(asked.request_id, result, len(request.payloads or ()), more)


def choose_target(platform: Platform, record: TokenRecord, modality: str) -> str:
    """The name of the modality's default; where none is set, the only target for it that the token may call.

    Raises ModelNotFound, which names nothing that the caller may not see.
    """
    default = platform.defaults.targets.get(modality)
    if default is not None:
        if record.allows_model(default):
            return default
        raise ModelNotFound(f"This is {_NOUNS[modality]}; the default for that is not for this token.")
    names = [
        name
        for name, targets in [*platform.catalogue.targets().items(), *platform.catalogue.idle().items()]
        if record.allows_model(name) and any(target.modality == modality for target in targets)
    ]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ModelNotFound(
            f"This is {_NOUNS[modality]}; no model in service that this token may call takes that."
        )
    known = ", ".join(sorted(names)[:_NAMED])
    raise ModelNotFound(
        f"This is {_NOUNS[modality]}; several models take that ({known}), and none is the default."
    )


_NAMED = 5
_NOUNS = {"image": "an image", "audio": "a recording", "text": "text", "tensor": "a call with tensors"}


async def _read(claimed: bytes, body: bytes, max_items: int) -> tuple[str, Call]:
    if len(body) <= SMALL_BODY_BYTES:
        return read_by_content(claimed, body, max_items=max_items)
    return await asyncio.to_thread(read_by_content, claimed, body, max_items=max_items)
