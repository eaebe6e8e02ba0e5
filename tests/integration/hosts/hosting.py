"""Engine hosts for tests: in a process of their own with the fake engine, or in this process with a gated one."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from core.control.hosted import HostedRunner
from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.serving.host import HostServer
from core.serving.host_client import HostClient
from core.serving.run_result import RunResult
from core.serving.runner import LocalRunner, Runner, RunnerOptions
from core.serving.sequences import DEFAULT_SEQUENCES, SequenceLimits
from core.signature import Signature, TensorSpec

POISON = 13.0


def signature(dtype: str = "FP32", shape: Sequence[int] = (-1, -1)) -> Signature:
    """One input `x` and one output `y` of the same form."""
    return Signature((TensorSpec("x", dtype, tuple(shape)),), (TensorSpec("y", dtype, tuple(shape)),))


def fake_job(
    folder: Path, *, fake: dict[str, Any] | None = None, engine: str = "fake", **options: Any
) -> dict[str, Any]:
    """What a host process is told, to serve a fake model that lies in `folder`; `x` times 2 is `y`."""
    made = {"signature": signature().to_json(), "latency_ms": 0, **(fake or {})}
    artifact = folder / "model.json"
    artifact.write_text(json.dumps(made))
    return {
        "engine": engine,
        "artifact": str(artifact),
        "engine_options": {"device": "cpu", "threads": 0},
        "options": asdict(RunnerOptions("test", **options)),
        "socket": str(folder / "host.sock"),
    }


@asynccontextmanager
async def hosted(folder: Path, **options: Any) -> AsyncIterator[HostedRunner]:
    """A started runner in a host process; at the end neither process nor socket is left."""
    job = fake_job(folder, **options)
    runner = HostedRunner("test", Path(job["socket"]), job, options.get("queue_size", 256))
    await runner.start(lambda state: None)
    try:
        yield runner
    finally:
        pid = runner.process.pid
        await runner.close()
        assert pid is None or not psutil.pid_exists(pid)
        assert not Path(job["socket"]).exists()


async def call(
    runner: Runner, value: Any, *, timeout_s: float = 20, items: int = 1, priority: int = 5
) -> np.ndarray[Any, Any]:
    """The output `y` for `x`: an array, or a number that fills one of 2."""
    x = value if isinstance(value, np.ndarray) else np.full((1, 2), value, np.float32)
    runner.admit(items)
    result: RunResult = await runner.run({"x": x}, items, priority=priority, deadline=time.monotonic() + timeout_s)
    return result.outputs["y"]


async def until(what: str, look: Callable[[], Any], timeout_s: float = 10) -> Any:
    """Wait until `look` answers something true."""
    try:
        async with asyncio.timeout(timeout_s):
            while not (found := look()):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen") from None
    return found


async def until_restarts(runner: HostedRunner, count: int) -> None:
    """Wait until the host has died so often."""
    await until(f"death {count}", lambda: runner.process.restarts == count)


async def until_busy(runner: Runner) -> None:
    """Wait until something runs."""
    async with asyncio.timeout(10):
        while not (await runner.stats()).busy:
            await asyncio.sleep(0.005)


def holdings() -> tuple[int, int, int]:
    """Descriptors, mappings of shared memory, and threads of this process."""
    gc.collect()
    with open("/proc/self/maps") as maps:
        shared = sum("pulvinar" in line for line in maps)
    return len(os.listdir("/proc/self/fd")), shared, threading.active_count()


class GatedEngine(Engine):
    """Answers `x` times 2, once it is let through; remembers what it was given to run."""

    name = "gated"
    formats = ()
    concurrent = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.seen: list[np.ndarray[Any, Any]] = []

    @classmethod
    def info(cls) -> EngineInfo:
        """Always available."""
        return EngineInfo(cls.name, available=True)

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Nothing to load."""
        return signature()

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Wait at the gate, and only then read the input."""
        self.entered.release()
        assert self.gate.wait(20)
        self.seen.append(inputs["x"].copy())
        return {"y": inputs["x"] * 2}

    def memory(self) -> int:
        """Nothing worth mentioning."""
        return 0

    def close(self) -> None:
        """Let go of whoever waits."""
        self.gate.set()


class InProcess:
    """A host on this event loop, and clients of it over its real socket."""

    def __init__(self, folder: Path, sequences: SequenceLimits = DEFAULT_SEQUENCES, **options: Any) -> None:
        self.engine = GatedEngine()
        self.path = folder / "host.sock"
        self.runner = LocalRunner(
            RunnerOptions("gated", **{"max_batch": 1, **options}), lambda: (self.engine, signature()), sequences
        )
        self.clients: list[HostClient] = []
        self._serving: asyncio.Task[None] | None = None
        self._queue_size = options.get("queue_size", 256)

    async def __aenter__(self) -> InProcess:
        server = HostServer(self.runner, self.path)  # before the start, as a host does it
        self.engine.gate.set()  # for the warm-up
        await self.runner.start(lambda state: None)
        self.engine.gate.clear()
        self._serving = asyncio.create_task(server.serve(server.listen()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.engine.gate.set()
        for client in self.clients:
            await client.close()
        assert self._serving is not None
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self.runner.close()

    async def client(self) -> HostClient:
        """One more client, connected."""
        client = HostClient(self.path, self._queue_size)
        await client.start(lambda state: None)
        self.clients.append(client)
        return client

    async def wait_running(self) -> None:
        """Wait until the engine has taken one more batch."""
        assert await asyncio.to_thread(self.engine.entered.acquire, timeout=10)


def free_bytes(client: HostClient) -> int:
    """Room in the client's arena."""
    assert client._link is not None
    return client._link.free_bytes
