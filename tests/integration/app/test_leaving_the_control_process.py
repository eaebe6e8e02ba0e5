"""A worker that can no longer follow the control process ends, and is replaced: it must not serve what was."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.lifespan import _follow
from core.control.follower import Follower
from core.serving.catalogue import Catalogue
from core.tasks.base import MediaLimits


@pytest.mark.parametrize(
    "said", [b"", b'{"k": "status"}\n', b"not JSON\n"], ids=["nothing more", "half a message", "no message"]
)
def test_a_worker_that_cannot_follow_ends(tmp_path: Path, said: bytes) -> None:
    asyncio.run(_cannot_follow(tmp_path / "control.sock", said))


async def _cannot_follow(path: Path, said: bytes) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    try:
        async with await asyncio.start_unix_server(tell, path):
            with ThreadPoolExecutor(1) as threads:
                follower = Follower(path, "worker 1", Catalogue(), threads, MediaLimits(), drain_s=1)
                following = asyncio.create_task(_follow(follower))
                await asyncio.wait_for(stopped.wait(), 30)
                assert not following.done()
                following.cancel()
                await asyncio.wait([following])
                await follower.close()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
