"""A request that is answered leaves nothing behind that only the garbage collector finds."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from app.middleware import ANSWER_NOW, BODY_NOW
from app.protocol import Cycle, Protocol
from core.settings import Settings

REQUEST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n\r\nhi"
ANSWERED = b"\r\n\r\nhi back"


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    scope[ANSWER_NOW](200, [], scope[BODY_NOW]() + b" back")


async def _cycles_after(requests: int) -> int:
    """How many cycles are kept once one connection has asked so often."""
    config = uvicorn.Config(_answer, lifespan="off", access_log=False, log_config=None)
    config.load()
    state = {"platform": SimpleNamespace(settings=Settings())}
    server_state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, server_state, state), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(requests):
            writer.write(REQUEST)
            await asyncio.wait_for(reader.readuntil(ANSWERED), 30)
        kept = sum(type(one) is Cycle for one in gc.get_objects())
        writer.close()
        await writer.wait_closed()
    return kept


def test_a_connection_keeps_its_last_request_alone() -> None:
    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(_cycles_after(20)) == 1
    finally:
        gc.enable()
