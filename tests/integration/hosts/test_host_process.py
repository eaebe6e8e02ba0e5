"""The life and death of a host's process."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from core.control import host_process
from core.control.desired import DesiredDeployment
from core.control.drains import Drains
from core.control.follower import Follower
from core.control.host_log import KEPT_LOGS, LINE_CHARACTERS, LINES, HostLog, HostLogs
from core.control.host_process import HostProcess
from core.control.hosted import HostedRunner
from core.control.model_state import ModelState
from core.control.occupancy import Occupancy
from core.control.publisher import Publisher
from core.control.rollout import LoadedVersion
from core.errors import DeadlineExceeded, LoadFailed
from core.serving.catalogue import Catalogue, Served
from core.serving.deployment import Deployment, DeploymentOptions
from core.tasks.base import DEFAULT_LIMITS
from core.tasks.tensor import TensorTask
from tests.integration.hosts.hosting import call, fake_job, hosted, signature, until, until_restarts
from tests.servers import ROOT

ODD = "import sys; sys.path.insert(0, sys.argv[1]); from tests.integration.hosts.odd_engines import main; main()"


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def _failure(process: HostProcess) -> str:
    """What `start` says, having left nothing behind."""
    with pytest.raises(LoadFailed) as failure:
        await process.start(lambda state: None)
    assert process.pid is None
    return failure.value.message


def test_it_says_its_states_and_ends_when_told(tmp_path: Path) -> None:
    async def main() -> None:
        process = HostProcess("test", fake_job(tmp_path))
        states: list[str] = []
        await process.start(states.append)
        assert states == ["loading", "warming"]
        assert process.pid in _children()
        began = f"Process {process.pid} began."
        await process.stop()
        assert process.pid is None
        assert not _children()
        noted = [line.text for line in process.log.lines() if line.ours]
        assert noted == [began, "The process is being ended."]

    asyncio.run(main())


def test_one_that_was_ended_is_gone_before_the_garbage_collector_comes(tmp_path: Path) -> None:
    """It has an example of the model's inputs, megabytes at times, and the server's collector comes rarely."""

    async def main() -> weakref.ref[HostProcess]:
        process = HostProcess("test", fake_job(tmp_path))
        await process.start(lambda state: None)
        await process.stop()
        return weakref.ref(process)

    gc.collect()
    gc.disable()
    try:
        ended = asyncio.run(main())
        assert ended() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("fake", "says"),
    [
        ({"fail": "load"}, "told to fail while loading"),
        ({"signature": 7}, "cannot be read"),
        (
            {"fail": "crash", "signature": signature(shape=(-1, 2)).to_json()},
            "by SIGKILL while loading",
        ),  # as it warms
    ],
)
def test_a_load_that_fails_says_why(tmp_path: Path, fake: dict[str, Any], says: str) -> None:
    async def main() -> None:
        message = await _failure(HostProcess("test", fake_job(tmp_path, fake=fake)))
        assert says in message
        assert message.endswith(".")
        assert not _children()

    asyncio.run(main())


def test_a_bug_while_loading_is_told_without_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_process, "_START", ODD)

    async def main() -> None:
        process = HostProcess("test", fake_job(tmp_path, engine="broken"))
        message = await _failure(process)
        assert "ended with code 1 while loading" in message
        assert "RuntimeError: cannot make sense of model.json" in message
        assert str(tmp_path) not in message
        assert any("Traceback" in line for line in process.log.last(100))

    asyncio.run(main())


def test_killed_while_loading(tmp_path: Path) -> None:
    async def main() -> None:
        process = HostProcess("test", fake_job(tmp_path, fake={"load_ms": 20_000}))
        loading = asyncio.Event()
        starting = asyncio.create_task(process.start(lambda state: loading.set()))
        await loading.wait()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(LoadFailed, match="was killed by SIGKILL while loading"):
            await starting
        assert process.restarts == 0

    asyncio.run(main())


@pytest.mark.parametrize("engine", ["fake", "greedy"])
def test_cancelled_while_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(host_process, "_START", ODD)

    async def main() -> None:
        process = HostProcess("test", fake_job(tmp_path, fake={"load_ms": 100_000}, engine=engine))
        loading = asyncio.Event()
        starting = asyncio.create_task(process.start(lambda state: loading.set()))
        await loading.wait()
        pid = process.pid
        starting.cancel()
        async with asyncio.timeout(50):  # not as long as the load
            await asyncio.gather(starting, return_exceptions=True)
        assert pid is not None
        assert not psutil.pid_exists(pid)

    asyncio.run(main())


def test_cancelled_again_while_it_is_being_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_process, "_START", ODD)
    monkeypatch.setattr(host_process, "STOP_S", 60.0)

    async def main() -> None:
        process = HostProcess("test", fake_job(tmp_path, engine="greedy"))
        loading = asyncio.Event()
        starting = asyncio.create_task(process.start(lambda state: loading.set()))
        await loading.wait()
        pid = process.pid
        assert pid is not None
        for _ in range(3):
            starting.cancel()
            await asyncio.sleep(0.05)
        await until("its end", lambda: not psutil.pid_exists(pid))

    asyncio.run(main())


def test_signals_meant_for_the_whole_service_do_not_end_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path, fake={"latency_ms": 200}) as runner:
            assert runner.process.pid is not None
            calling = asyncio.create_task(call(runner, 1))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(runner.process.pid, number)
            assert (await calling)[0, 0] == 2
            assert runner.process.restarts == 0

    asyncio.run(main())


def test_noise_on_its_outputs_neither_confuses_nor_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_process, "_START", ODD)

    async def main() -> None:
        async with hosted(tmp_path, engine="noisy") as runner:
            for i in range(5):
                assert (await call(runner, i))[0, 0] == 2 * i
            lines = runner.process.log.last(LINES)
            assert any("from Python, too" in line for line in lines)
            assert len(lines) <= LINES
            assert max(map(len, lines)) <= LINE_CHARACTERS

    asyncio.run(main())


def test_what_cannot_be_started_again_says_so_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_process, "LOAD_FIRST_S", 0.1)

    async def main() -> None:
        changes: list[str] = []
        async with hosted(tmp_path) as runner:
            process = runner.process
            process.on_change = lambda: changes.append(process.trouble)
            artifact = tmp_path / "model.json"
            content = artifact.read_text()
            artifact.unlink()
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await until("two tries", lambda: sum("does not start" in change for change in changes) >= 2)
            assert (
                "was killed by SIGKILL and does not start again: The fake model cannot be read" in runner.trouble
            )
            with pytest.raises(DeadlineExceeded):
                await call(runner, 1, timeout_s=0.1)
            artifact.write_text(content)
            assert (await call(runner, 4, timeout_s=20))[0, 0] == 8
            assert runner.trouble == changes[-1] == ""
            assert (await runner.stats()).restarts == 1

    asyncio.run(main())


def test_one_that_keeps_dying_is_started_ever_more_slowly_but_never_given_up() -> None:
    waits = [host_process.crash_backoff_s(deaths) for deaths in (1, 2, 3, 4, 5, 6, 7, 100, 100_000)]
    assert waits == [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1]


def test_it_is_back_after_each_of_several_deaths(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosted(tmp_path) as runner:
            for death in range(1, 4):
                pid = await until("a process", lambda: runner.trouble == "" and runner.process.pid)
                os.kill(pid, signal.SIGKILL)
                await until_restarts(runner, death)
            assert (await call(runner, 1))[0, 0] == 2

    asyncio.run(main())


PARENT = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from core.control.host_process import HostProcess
from core.control.publisher import Publisher
async def main():
    process = HostProcess("test", json.loads(sys.argv[2]))
    started = asyncio.Event()
    starting = asyncio.create_task(process.start(lambda state: started.set()))
    await started.wait()
    if sys.argv[3] == "ready":
        await starting
    print(process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["loading", "ready"])
def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path, moment: str) -> None:
    fake = {"load_ms": 30_000 if moment == "loading" else 0}
    arguments = [sys.executable, "-c", PARENT, str(ROOT), json.dumps(fake_job(tmp_path, fake=fake)), moment]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the host outlived its parent"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"on", b"e\ntw", b"o"], ["one", "two"]),
        ([b"10%\r20%\r30%\r\n"], ["10%", "20%", "30%"]),
        ([b"\x1b[31mred\x1b[0m\x00 and \xff\n\n  \n"], ["red and \ufffd"]),
        ([b"x" * 100_000, b"y" * 100_000, b"\nend"], ["x" * LINE_CHARACTERS, "end"]),
    ],
)
def test_a_log_keeps_lines_of_what_comes(written: list[bytes], lines: list[str]) -> None:
    async def main() -> None:
        stream = asyncio.StreamReader()
        log = HostLog()
        following = asyncio.create_task(log.follow(stream))
        for part in written:
            stream.feed_data(part)
            await asyncio.sleep(0.001)
        stream.feed_eof()
        await following
        assert log.last(LINES) == lines

    asyncio.run(main())


@pytest.mark.parametrize(
    ("line", "summary"),
    [
        ("", ""),
        (
            "OSError: [Errno 2] No such file: '/srv/x y/a/model.onnx'",
            "OSError: [Errno 2] No such file: 'x y/a/model.onnx'",
        ),
        (
            "/opt/lib/engine.so: 3/4 of N/A, see https://example.org/a/b",
            "engine.so: 3/4 of N/A, see https://example.org/a/b",
        ),
    ],
)
def test_a_summary_names_no_directories(line: str, summary: str) -> None:
    log = HostLog()
    log._add(line.encode())
    assert log.summary() == summary


def test_what_we_note_is_kept_apart_from_what_the_host_says() -> None:
    log = HostLog()
    log._add(b"out of memory")
    log.note("The process was killed by SIGKILL.")
    assert (log.last(5), log.summary()) == (["out of memory"], "out of memory")
    assert [(line.text, line.ours) for line in log.lines()] == [
        ("out of memory", False),
        ("The process was killed by SIGKILL.", True),
    ]


def test_logs_outlive_their_hosts_and_are_bounded() -> None:
    logs = HostLogs()
    logs.open("cats", 10).note("ten")
    logs.open("cats", 9).note("nine")
    assert logs.open("cats", 9) is logs.open("cats", 9)
    assert {version: [text for _, text, _ in lines] for version, lines in logs.of("cats").items()} == {
        "9": ["nine"],
        "10": ["ten"],
    }
    for number in range(KEPT_LOGS):
        logs.open("dogs", number)
    assert not logs.of("cats")


def test_a_worker_asks_the_control_process_for_logs(tmp_path: Path) -> None:
    async def main() -> None:
        logs = HostLogs()
        publisher = Publisher(tmp_path / "control.sock")
        publisher.tell_status(caught_up=False, not_ready={}, states={}, expected={}, memory={})
        await publisher.start()
        with ThreadPoolExecutor(1) as threads:
            follower = Follower(publisher.path, "w1", Catalogue(), threads, DEFAULT_LIMITS, drain_s=1)
            following = asyncio.create_task(follower.run())
            await asyncio.wait_for(follower.synced.wait(), 30)
            assert await follower.host_logs("cats") == {}
            logs.open("cats", 2).note("began")
            publisher.logs = logs.of
            said = await follower.host_logs("cats")
            assert [(text, ours) for _, text, ours in said["2"]] == [("began", True)]
            await follower.close()
            await publisher.close()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())


def test_an_array_of_each_kind_goes_through_a_process_and_back(tmp_path: Path) -> None:
    async def main() -> None:
        words = {"signature": signature("BYTES").to_json()}
        async with hosted(tmp_path, fake=words) as runner:
            sent = np.array([["a", b"\xff"], ["", "é"]], np.object_)
            answer = await call(runner, sent, items=2)
            assert answer.tolist() == [["a", b"\xff"], ["", "é"]]

    asyncio.run(main())


def test_a_version_whose_load_is_given_up_as_it_is_measured_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        job = fake_job(tmp_path)
        with ThreadPoolExecutor(1) as threads:
            deployment = Deployment(
                DeploymentOptions("m", 1),
                HostedRunner("test", Path(job["socket"]), job, 256),
                lambda signature: TensorTask({}, signature, tmp_path),
                threads,
            )
            await deployment.start()
            state, desired = ModelState(1), DesiredDeployment(1, "m", 1, running=True)
            drains = Drains(1.0, lambda: None, lambda: None)
            usage = Catalogue().usage
            occupancy = Occupancy(0, {"m": state}, dict, usage, NoLoads(), drains, lambda model: None)
            held = {1: LoadedVersion(deployment, Served(deployment), desired.load_key)}
            settling = asyncio.create_task(occupancy.settle(state, desired, held))
            await asyncio.sleep(0)
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
            await drains.over()
            try:
                assert settling.cancelled()
                assert not _children()
            finally:
                await deployment.close()

    asyncio.run(main())


class NoLoads:
    """Nothing is loaded here."""

    async def load(self, *_: Any) -> Any:
        raise NotImplementedError

    async def describe(self, *_: Any) -> Any:
        return {}
