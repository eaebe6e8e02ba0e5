"""Arrays to another process: an arena of shared memory against frames over the socket, in one run.

The same code sends both ways (`core.serving.wire`, uvloop, a Unix socket); only where the numbers lie differs.
The receiver copies each array once, as joining a batch does, and answers with a word. Latency is of one array at
a time, CPU is that of both processes for one array, throughput is with eight under way.

`python -m benchmarks.transport --seconds 1 --rounds 3`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import uvloop

from core.serving import wire
from core.serving.arena import Arena, ArenaView, Block
from core.serving.wire import FrameProtocol, Header, pack_tensors, unpack_tensors

ARENA_BYTES = 256 << 20
UNDER_WAY = 8
ARRAYS: dict[str, tuple[int, ...]] = {
    "4 KB": (1, 1024),
    "16 KB": (1, 4096),
    "64 KB": (1, 16384),
    "600 KB (1x3x224x224)": (1, 3, 224, 224),
    "10 MB": (1, 2_621_440),
}
WARM = 20


class NoArena:
    """Never has room, so that everything goes into the frame."""

    def put(self, array: np.ndarray[Any, Any]) -> Block | None:
        """No room."""
        return None


@dataclass(frozen=True, slots=True)
class Found:
    """Of one array, in microseconds; and gigabytes a second with several under way."""

    latency_us: float
    cpu_us: float
    gb_per_s: float


class Sender:
    """Sends arrays and waits for the receiver's word about each."""

    def __init__(self, arena: Arena | NoArena) -> None:
        self._arena = arena
        self._waiting: dict[int, tuple[asyncio.Future[None], wire.Blocks]] = {}
        self._last = 0
        self.protocol = FrameProtocol(self._on_frame, lambda: None)

    def send(self, array: np.ndarray[Any, Any]) -> asyncio.Future[None]:
        """Done when the receiver is."""
        self._last += 1
        described, body, blocks = pack_tensors({"x": array}, cast(Arena, self._arena))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = future, blocks
        self.protocol.send({"k": "run", "id": self._last, "t": described}, body)
        return future

    def _on_frame(self, header: Header, body: bytearray) -> None:
        future, blocks = self._waiting.pop(header["id"])
        for block in blocks:
            cast(Arena, self._arena).free(block)
        future.set_result(None)


async def receive(peer: socket.socket, arena_fd: int) -> None:
    """The other process: copy each array, say so."""
    view, lost = ArenaView(arena_fd), asyncio.Event()

    def on_frame(header: Header, body: bytearray) -> None:
        array = unpack_tensors(header["t"], body, view)["x"]
        np.concatenate([array, array[:0]])
        protocol.send({"k": "done", "id": header["id"]})

    protocol = FrameProtocol(on_frame, lost.set)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, peer)
    await lost.wait()


async def measure(shape: tuple[int, ...], *, shared: bool, seconds: float) -> Found:
    """One way of sending one array, against a fresh receiver."""
    wire.INLINE_BYTES = 0 if shared else 64 << 10  # everything in the arena, or nothing; not what is best for both
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    arena = Arena(ARENA_BYTES)
    command = [sys.executable, "-m", "benchmarks.transport", "--receive", f"{theirs.fileno()},{arena.fd}"]
    child = subprocess.Popen(command, pass_fds=(theirs.fileno(), arena.fd))
    theirs.close()
    sender = Sender(arena if shared else NoArena())
    await asyncio.get_running_loop().connect_accepted_socket(lambda: sender.protocol, ours)
    array = np.random.default_rng(0).random(shape, np.float32)
    for _ in range(WARM):
        await sender.send(array)
    before_s, times_s, until = _cpu_s(child.pid), [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        await sender.send(array)
        times_s.append(time.perf_counter() - started)
    cpu_s = (_cpu_s(child.pid) - before_s) / len(times_s)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await asyncio.gather(*(sender.send(array) for _ in range(UNDER_WAY)))
        count += UNDER_WAY
    rate = count * array.nbytes / (time.perf_counter() - began) / 1e9
    sender.protocol.close()
    await asyncio.to_thread(child.wait)
    arena.close()
    return Found(float(np.median(times_s)) * 1e6, cpu_s * 1e6, rate)


def _cpu_s(child: int) -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    with open(f"/proc/{child}/stat") as stat:
        ticks = sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
    return own.ru_utime + own.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


async def compare(seconds: float, rounds: int) -> None:
    """Print a table: medians over the rounds, in which both take turns."""
    print("| array | arena µs | frame µs | frame/arena | arena CPU µs | frame CPU µs | arena GB/s | frame GB/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, shape in ARRAYS.items():
        found = [
            (
                await measure(shape, shared=True, seconds=seconds),
                await measure(shape, shared=False, seconds=seconds),
            )
            for _ in range(rounds)
        ]
        arena, frame = (_median([pair[side] for pair in found]) for side in (0, 1))
        ratio = statistics.median(frame.latency_us / arena.latency_us for arena, frame in found)
        print(
            f"| {name} | {arena.latency_us:.0f} | {frame.latency_us:.0f} | {ratio:.2f} | "
            f"{arena.cpu_us:.0f} | {frame.cpu_us:.0f} | {arena.gb_per_s:.2f} | {frame.gb_per_s:.2f} |",
            flush=True,
        )


def _median(found: Sequence[Found]) -> Found:
    return Found(
        statistics.median(one.latency_us for one in found),
        statistics.median(one.cpu_us for one in found),
        statistics.median(one.gb_per_s for one in found),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or be the other process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each of the two loops of each figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.receive is None:
        uvloop.run(compare(chosen.seconds, chosen.rounds))
        return
    peer, arena = map(int, chosen.receive.split(","))
    receiving = socket.socket(fileno=peer)
    receiving.setblocking(False)
    uvloop.run(receive(receiving, arena))


if __name__ == "__main__":
    main()
