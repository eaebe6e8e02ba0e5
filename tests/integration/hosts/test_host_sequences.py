"""Sequences that live in a host: reached by every process that serves the model, and given back when one goes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from core.errors import Conflict, DeadlineExceeded, RunFailed, Unavailable
from core.serving.host_client import HostClient
from core.serving.request import SequencePart
from core.serving.sequences import Hold, SequenceLimits
from tests.integration.hosts.hosting import InProcess, free_bytes, hosted, until, until_restarts


async def hold(client: HostClient, id_: str, *, start: bool = False, timeout_s: float = 10) -> Hold:
    return await client.hold(SequencePart(id_, start=start), time.monotonic() + timeout_s)


def state(value: float) -> dict[str, np.ndarray]:
    return {"h": np.full((2, 1, 128), value, np.float32), ".rest": np.empty(0, np.float32)}


def test_parts_may_come_through_any_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            one, other = await there.client(), await there.client()
            first = await hold(one, "a", start=True)
            assert first.state == {}
            waiting = asyncio.create_task(hold(other, "a"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            first.keep(state(3))
            second = await waiting
            assert second.state["h"].shape == (2, 1, 128)
            assert (second.state["h"] == 3).all()
            assert second.state[".rest"].shape == (0,)
            second.keep(None)
            for client in (one, other):
                with pytest.raises(Conflict, match="no such sequence"):
                    await hold(client, "a")

    asyncio.run(main())


def test_what_a_caller_holds_or_waits_for_is_given_back_when_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            one, other = await there.client(), await there.client()
            (await hold(one, "a", start=True)).keep(state(1))
            await hold(one, "a")  # and its process ends
            waiting = asyncio.create_task(hold(one, "a"))
            with pytest.raises(DeadlineExceeded):
                await hold(other, "a", timeout_s=0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await one.close()
            held = await hold(other, "a")
            assert (held.state["h"] == 1).all()
            with pytest.raises(RunFailed, match="32 KB"):
                held.keep({"h": np.zeros(40_000, np.uint8)})
            assert ((await hold(other, "a")).state["h"] == 1).all()

    asyncio.run(main())


def test_a_state_may_be_as_large_as_the_host_was_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path, SequenceLimits(most=1, state_bytes=80_000)) as there:
            one, other = await there.client(), await there.client()
            room = free_bytes(one)
            large = np.arange(20_000, dtype=np.float32)
            (await hold(one, "a", start=True)).keep({"h": large})
            held = await hold(other, "a")
            assert (held.state["h"] == large).all()
            held.keep({"h": large + 1})
            with pytest.raises(Unavailable, match="1 sequences already"):
                await hold(one, "b", start=True)
            again = await hold(one, "a")
            assert (again.state["h"] == large + 1).all()
            assert free_bytes(one) == free_bytes(other) == room
            with pytest.raises(RunFailed, match=r"78\.125 KB"):
                again.keep({"h": np.zeros(20_001, np.float32)})

    asyncio.run(main())


def test_all_sequences_end_with_the_host(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as runner:
            part = SequencePart("a", start=True)
            held = await runner.hold(part, time.monotonic() + 10)
            waiting = asyncio.create_task(runner.hold(SequencePart("a"), time.monotonic() + 10))
            await asyncio.sleep(0.05)
            assert runner.process.pid is not None
            os.kill(runner.process.pid, signal.SIGKILL)
            with pytest.raises(Unavailable, match="anew"):
                await waiting
            await until_restarts(runner, 1)
            held.keep(state(1))
            await until("the host is back", lambda: runner._client._link)
            with pytest.raises(Conflict):
                await runner.hold(SequencePart("a"), time.monotonic() + 10)
            (await runner.hold(part, time.monotonic() + 10)).keep(state(2))

    asyncio.run(main())
