"""Engines that raise, hang, answer in a wrong shape or leak, with real batches on real threads and processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.control import host_process
from core.control.host_main import make_engine
from core.errors import DeadlineExceeded, RunFailed
from core.serving.runner import LocalRunner, RunnerOptions
from tests.integration.hosts.hosting import POISON, call, fake_job, hosted, until_busy
from tests.integration.hosts.test_host_process import ODD

MIB = 1 << 20
Serve = Callable[..., Any]


@asynccontextmanager
async def in_thread(folder: Path, **options: Any) -> AsyncIterator[LocalRunner]:
    """The same model in this process."""
    job = fake_job(folder, **options)
    runner = LocalRunner(RunnerOptions(**job["options"]), lambda: make_engine(job))
    await runner.start(lambda state: None)
    try:
        yield runner
    finally:
        await runner.close()


both = pytest.mark.parametrize("serve", [in_thread, hosted], ids=["thread", "process"])


@both
def test_of_a_batch_only_the_item_fails_that_the_engine_cannot_run(tmp_path: Path, serve: Serve) -> None:
    async def main() -> None:
        async with serve(
            tmp_path, fake={"fail": "run", "fail_on": POISON}, max_batch=5, max_delay_ms=2000
        ) as runner:
            values = [1, 2, POISON, 3, 4]
            answers = await asyncio.gather(*(call(runner, value) for value in values), return_exceptions=True)
            failed = answers.pop(2)
            assert isinstance(failed, RunFailed)
            assert failed.message == "The fake model was told to fail on this batch."
            assert [float(answer[0, 0]) for answer in answers] == [2, 4, 6, 8]
            assert (await runner.stats()).batch_sizes == {5: 1}
            assert (await runner.stats()).restarts == 0

    asyncio.run(main())


@both
def test_a_caller_that_leaves_a_batch_spoils_it_for_nobody(tmp_path: Path, serve: Serve) -> None:
    async def main() -> None:
        async with serve(tmp_path, fake={"latency_ms": 300}, max_batch=3, max_delay_ms=2000) as runner:
            calls = [asyncio.create_task(call(runner, value)) for value in (1, 2, 3)]
            await until_busy(runner)
            calls[1].cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(answers.pop(1), asyncio.CancelledError)
            assert [float(answer[0, 0]) for answer in answers] == [2, 6]
            stats = await runner.stats()
            assert (stats.batch_sizes, stats.depth, stats.busy) == ({3: 1}, 0, 0)

    asyncio.run(main())


@both
def test_a_hang_is_a_504_and_its_slot_comes_back(tmp_path: Path, serve: Serve) -> None:
    async def main() -> None:
        async with serve(tmp_path, fake={"fail": "hang", "fail_on": POISON}, instances=1, max_batch=1) as runner:
            hanging = asyncio.create_task(call(runner, POISON, timeout_s=0.3))
            await until_busy(runner)
            waiting = asyncio.create_task(call(runner, 4))
            with pytest.raises(DeadlineExceeded) as late:
                await hanging
            assert late.value.status == 504
            assert float((await waiting)[0, 0]) == 8
            assert (await runner.stats()).slots == 1

    threads = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() <= threads + 1, "closing lets hanging runs go"


def test_an_answer_of_a_wrong_shape_fails_its_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_process, "_START", ODD)

    async def main() -> None:
        async with hosted(tmp_path, engine="shapeless", max_batch=4, max_delay_ms=2000) as runner:
            values = [1, POISON, 2, 3]
            answers = await asyncio.gather(*(call(runner, value) for value in values), return_exceptions=True)
            failed = answers.pop(1)
            assert isinstance(failed, RunFailed)
            assert failed.message == "The model answered output 'y' of shape [0, 2] to a batch of 1."
            assert [float(answer[0, 0]) for answer in answers] == [2, 4, 6]
            assert runner.process.restarts == 0

    asyncio.run(main())


def test_what_an_engine_leaks_goes_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends a process that is out of memory by SIGKILL; who called does not notice."""
    monkeypatch.setattr(host_process, "_START", ODD)

    async def main() -> None:
        async with hosted(tmp_path, engine="leaky", max_batch=1) as runner:
            ours = psutil.Process().memory_info().rss
            assert runner.process.pid is not None
            host = psutil.Process(runner.process.pid)
            for value in range(10):
                await call(runner, value)
            leaked = host.memory_info().rss
            assert leaked > 320 * MIB
            host.kill()
            assert float((await call(runner, 7))[0, 0]) == 14
            assert runner.process.pid is not None
            assert psutil.Process(runner.process.pid).memory_info().rss < leaked - 200 * MIB
            assert psutil.Process().memory_info().rss < ours + 32 * MIB

    asyncio.run(main())
