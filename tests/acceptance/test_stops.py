"""Ends of a server: orderly ones, hurried ones, and those that are forced."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager

import pytest

from app import lifespan
from app.ending import LAST_WORDS_S, MARGIN_S
from app.lifespan import run_in_background
from tests.acceptance import onnx_models
from tests.conftest import StartServer
from tests.servers import ROOT, RunningServer, wait_until


@contextmanager
def nobody_can_write(server: RunningServer) -> Iterator[None]:
    """Hold the lock of its database, as another process that writes."""
    with closing(sqlite3.connect(server.data_dir / "pulvinar.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def used(server: RunningServer) -> RunningServer:
    """With something to write down at the end."""
    server.upload("m", onnx_models.scale(2))
    server.deploy("m")
    assert server.infer("m", server.token(), json={"inputs": {"x": [[1.0] * 4]}}).status_code == 200
    return server


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_does_not_wait_long_for_a_database_that_is_held(start_server: StartServer, workers: str) -> None:
    server = used(start_server({"PULVINAR_SERVER__WORKERS": workers}))
    server.expected_in_log = ["worker.killed"]  # one that was waiting for the lock already
    with nobody_can_write(server):
        server.terminate()
        assert server.process.wait(server.drain_s + MARGIN_S + LAST_WORDS_S + 5) == 0
    assert server.log_events("node.not_left")
    server.wait_stopped()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_that_is_asked_for_again_and_again_is_an_orderly_one(
    start_server: StartServer, workers: str
) -> None:
    server = used(start_server({"PULVINAR_SERVER__WORKERS": workers}))
    while server.process.poll() is None:
        server.terminate()
    server.wait_stopped()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_interrupt_ends_it_at_once(start_server: StartServer, workers: str) -> None:
    server = used(start_server({"PULVINAR_SERVER__WORKERS": workers}))
    with nobody_can_write(server):
        server.process.send_signal(signal.SIGINT)
        wait_until("The stop", lambda: server.log_events("server.stopping"))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 130
    assert not server.log_events("node.not_left"), "it has waited for the database"
    server.kill()


STUCK = """
import asyncio, ctypes, sys, time
from app import lifespan
from app.ending import end_now, end_within, run_to_end
from core.logs import log_at

async def never_ends():
    await asyncio.Event().wait()

async def main():
    task = asyncio.create_task(never_ends(), name="the culprit")
    end_within(0.2, asyncio.get_running_loop())
    {how}

log_at("info", as_json=True)
run_to_end(main(), asyncio.new_event_loop)
end_now(0)
"""


def stuck(how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STUCK.format(how=how)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_stop_that_takes_too_long_is_forced_and_says_what_was_still_running() -> None:
    ended = stuck("await task")
    assert ended.returncode == 1
    assert '"event":"server.stop_overdue"' in ended.stderr
    assert "the culprit: locks.py" in ended.stderr
    assert "never_ends" in ended.stderr


def test_it_is_forced_where_the_event_loop_is_held_up() -> None:
    ended = stuck("time.sleep(600)")
    assert ended.returncode == 1
    assert "MainThread: <string>" in ended.stderr


def test_it_is_forced_where_the_whole_interpreter_is_held_up() -> None:
    ended = stuck("ctypes.PyDLL(None).sleep(600)  # does not let go of the interpreter's lock")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "in main" in ended.stderr


def test_an_orderly_end_waits_for_no_thread() -> None:
    ended = stuck("asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_background_task_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    async def main() -> None:
        async with asyncio.timeout(30), AsyncExitStack() as stack:
            run_in_background({"stubborn": stubborn()}, stack)
            await asyncio.sleep(0)

    monkeypatch.setattr(lifespan, "AGAIN_S", 0.05)
    asyncio.run(main())
    assert lost == 3
