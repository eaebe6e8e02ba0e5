"""Requests whose host dies, hangs or goes away: who is answered, how, and how often each was run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from core.control.hosted import HostedRunner
from core.errors import DeadlineExceeded, PlatformError, RunFailed, ShuttingDown
from core.serving.host_client import HostClient
from core.serving.trace import Noting, Trace, new_id
from tests.integration.hosts.hosting import POISON, call, holdings, hosted, until, until_busy, until_restarts


def test_no_request_is_lost_when_the_host_is_killed_under_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, fake={"latency_ms": 2}, max_batch=4) as runner:
            stop = asyncio.Event()

            async def caller(number: int) -> int:
                count = 0
                while not stop.is_set():
                    assert (await call(runner, number))[0, 0] == 2 * number
                    count += 1
                return count

            callers = [asyncio.create_task(caller(number)) for number in range(16)]
            for death in range(1, 4):
                await asyncio.sleep(0.2)
                pid = await until("a host", lambda: runner.trouble == "" and runner.process.pid)
                os.kill(pid, signal.SIGKILL)
                killed = time.monotonic()
                await until_restarts(runner, death)
                assert (await call(runner, 1))[0, 0] == 2
                assert time.monotonic() - killed < 10  # 2 s on a machine that is not shared
            stop.set()
            assert min(await asyncio.gather(*callers)) > 5

    asyncio.run(main())


def test_a_poisonous_request_is_refused_after_two_crashes_and_takes_nobody_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        fake = {"fail": "crash", "fail_on": POISON}
        async with hosted(tmp_path, fake=fake, max_batch=8, max_delay_ms=100) as runner:
            values = [1, 2, POISON, 3, 4]
            answers = await asyncio.gather(*(call(runner, value) for value in values), return_exceptions=True)
            poisonous = answers.pop(2)
            assert isinstance(poisonous, RunFailed)
            assert "crashed the model's engine twice" in poisonous.message
            assert [float(answer[0, 0]) for answer in answers if not isinstance(answer, BaseException)] == [
                2,
                4,
                6,
                8,
            ]
            assert runner.process.restarts == 2
            assert runner.process.last_death == "was killed by SIGKILL"
            stats = await runner.stats()
            assert set(stats.batch_sizes) <= {1}, "those who had been aboard ran alone"
            assert (await call(runner, 5))[0, 0] == 10

    asyncio.run(main())


def test_one_who_was_aboard_once_by_chance_is_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, fake={"latency_ms": 400}, max_batch=1) as runner:
            aboard, waiting = (asyncio.create_task(call(runner, value)) for value in (1, 2))
            await until_busy(runner)
            assert runner.process.pid is not None
            os.kill(runner.process.pid, signal.SIGKILL)
            assert (await aboard)[0, 0] == 2
            assert (await waiting)[0, 0] == 4
            assert runner.process.restarts == 1

    asyncio.run(main())


def test_a_hang_costs_its_request_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, fake={"fail": "hang", "fail_on": POISON}, max_batch=1) as runner:
            before = time.monotonic()
            hanging = asyncio.create_task(call(runner, POISON, timeout_s=0.5))
            await until_busy(runner)
            others = [asyncio.create_task(call(runner, value)) for value in (1, 2, 3)]
            with pytest.raises(DeadlineExceeded):
                await hanging
            assert 0.4 < time.monotonic() - before < 5
            assert [float(answer[0, 0]) for answer in await asyncio.gather(*others)] == [2, 4, 6]
            assert runner.process.last_death == "was ended because a batch did not come back"
            assert runner.process.restarts == 1

    asyncio.run(main())


def test_deadlines_and_leaving_while_the_host_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, fake={"load_ms": 2500}) as runner:
            assert runner.process.pid is not None
            os.kill(runner.process.pid, signal.SIGKILL)
            await until("the loss", lambda: runner._client.losses == 1)
            before = time.monotonic()
            staying, leaving = (asyncio.create_task(call(runner, value)) for value in (1, 2))
            await asyncio.sleep(0)
            assert (await runner.stats()).depth == 2, "told without waiting for the host"
            with pytest.raises(DeadlineExceeded):
                await call(runner, 3, timeout_s=0.2)
            assert time.monotonic() - before < 2
            await _has_one_span_for_what_is_not_known(runner)
            leaving.cancel()
            assert (await staying)[0, 0] == 2
            assert time.monotonic() - before > 2
            assert not runner._client._pending
            assert (await runner.stats()).batch_sizes == {1: 1}, "only who stayed was run"

    asyncio.run(main())


def test_closing_answers_who_waits_for_a_host_that_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, fake={"load_ms": 2000}) as runner:
            assert runner.process.pid is not None
            os.kill(runner.process.pid, signal.SIGKILL)
            await until("the loss", lambda: runner._client.losses == 1)
            waiting = asyncio.create_task(call(runner, 1))
            await asyncio.sleep(0)
            before = time.monotonic()
            await runner.close()
            with pytest.raises(ShuttingDown):
                await waiting
            with pytest.raises(ShuttingDown):
                await call(runner, 1)
            await runner.close()
            assert time.monotonic() - before < 1.8

    asyncio.run(main())


def test_a_request_under_way_when_the_host_dies_leaves_no_memory_behind(tmp_path: Path) -> None:
    large = np.ones((1, 1 << 20), np.float32)

    async def main() -> None:
        async with hosted(tmp_path, fake={"latency_ms": 20}, max_batch=1) as runner:
            settled = (0, 0, 0)

            def no_more() -> bool:
                """What went with a process is closed in turns of the loop that come after its restart."""
                return all(now <= then for now, then in zip(holdings(), settled, strict=True))

            enough = asyncio.Event()

            async def keep_calling() -> None:
                """One call is over before a busy machine has looked whether it runs."""
                while not enough.is_set():
                    await call(runner, large)

            for death in range(1, 6):
                enough.clear()
                calls = [asyncio.create_task(keep_calling()) for _ in range(4)]
                await until_busy(runner)
                pid = await until("a host", lambda: runner.process.pid)
                os.kill(pid, signal.SIGKILL)
                enough.set()
                await asyncio.gather(*calls)
                await until_restarts(runner, death)
                del calls
                if death == 2:
                    settled = holdings()
                elif death > 2:
                    await until(f"that death {death} leaves no more than the second", no_more)

    asyncio.run(main())


def test_a_crash_of_a_process_that_shares_the_host_with_others(tmp_path: Path) -> None:
    """The other client's requests are sent again too, and each knows only its own."""

    async def main() -> None:
        fake = {"latency_ms": 1, "fail": "crash", "fail_on": POISON}
        async with hosted(tmp_path, fake=fake, max_batch=4, max_delay_ms=50) as runner:
            other = HostClient(runner.socket_path, 256)
            await other.start(lambda state: None)
            calls = [call(runner, 1), call(other, POISON), call(other, 2), call(runner, 3)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(answers[1], PlatformError)
            assert [float(answers[i][0, 0]) for i in (0, 2, 3)] == [2, 4, 6]  # type: ignore[index]
            assert runner.process.restarts == 2
            await other.close()

    asyncio.run(main())


async def _has_one_span_for_what_is_not_known(runner: HostedRunner) -> None:
    """Whether a request waited or ran in a host that has not told is not made up in its trace."""
    trace = Trace(new_id(), None, lambda trace, ended: None)
    runner.admit(1)
    x, began = np.ones((1, 2), np.float32), time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await runner.run({"x": x}, 1, priority=5, deadline=began + 0.1, noting=Noting(trace, "test", 1))
    (stage,) = trace.stages
    assert (stage.name, stage.error) == ("host", "deadline_exceeded")
    assert began <= stage.since <= began + 0.1 <= stage.until + 0.01
