"""A call by somebody who is signed in: no token, no charge; all else is as for any caller."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from app.external.call import Call, bind_call
from app.external.inference import count_error, count_left, write_result
from app.middleware import DISCONNECTED, ON_DISCONNECT
from app.state import Platform
from app.tallies import note_answer
from core.errors import PlatformError, ShuttingDown
from core.pipelines.trace import Trace


async def answer_own_call(
    platform: Platform,
    scope: MutableMapping[str, Any],
    name: str,
    version: int | None,
    call: Call,
    trace: Trace | None = None,
) -> bytes:
    """The JSON that the native API answers to this call. Raises PlatformError; counted as every other call.

    With `trace`, a pipeline keeps in it what went through its nodes.

    Ends where the client of `scope` goes away.
    """
    task = asyncio.current_task()
    assert task is not None
    scope[ON_DISCONNECT] = task.cancel
    request_id = str(scope["state"]["request_id"])
    try:
        if platform.stopping:
            raise ShuttingDown("The server is stopping; try again.", retry_after_s=1)
        lease = platform.catalogue.lease(name, version)
        async with lease as target:
            target.check_room()
            request = bind_call(target, call, max_items=platform.settings.inference.max_items)
            request.request_id, request.deadline = request_id, lease.deadline
            request.trace = trace
            result = await platform.statistics.infer(target, request)
    except PlatformError as error:
        count_error(platform, name, version or 0, error.status, error.code)
        raise
    except asyncio.CancelledError:
        if scope.get(DISCONNECTED):
            count_left(platform, name, version or 0)
        raise
    finally:
        scope.pop(ON_DISCONNECT, None)
    note_answer(platform, target, result, lease.waited_ms)
    return await write_result(request_id, result, len(request.payloads or ()))
