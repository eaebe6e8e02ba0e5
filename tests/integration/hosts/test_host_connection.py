"""What passes between a server and its host, on one event loop, so that every moment can be held."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DeadlineExceeded, LoadFailed, QueueFull, ShuttingDown, TooLarge
from core.serving import host, host_link, wire
from core.serving.host_client import HostClient
from tests.integration.hosts.hosting import InProcess, call, free_bytes, holdings, until

MIB = 1 << 20
LARGE = np.arange(MIB, dtype=np.float32).reshape(1, -1)


@pytest.mark.parametrize("shape", [(1, 4), (1, MIB), (3, 0), (2, 300_000)])
def test_answers_of_all_sizes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    async def main() -> None:
        async with InProcess(tmp_path, max_batch=8) as there:
            there.engine.gate.set()
            client = await there.client()
            whole = free_bytes(client)
            x = np.random.default_rng(1).random(shape).astype(np.float32)
            for form in (x, np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
                answer = await call(client, form, items=shape[0])
                np.testing.assert_array_equal(answer, x * 2)
                answer += 1  # the caller's own, whatever way it came
            assert free_bytes(client) == whole

    asyncio.run(main())


def test_a_batch_mixes_the_requests_of_all_clients(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path, max_batch=8, max_delay_ms=200) as there:
            there.engine.gate.set()
            one, other = await there.client(), await there.client()
            answers = await asyncio.gather(call(one, 1), call(other, 2), call(one, 3), call(other, 4))
            assert [float(answer[0, 0]) for answer in answers] == [2, 4, 6, 8]
            assert (await one.stats()).batch_sizes == {4: 1}

    asyncio.run(main())


def test_the_host_knows_which_requests_wait_for_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            client = await there.client()
            first = asyncio.create_task(call(client, 1.0))
            await there.wait_running()
            client.admit(3)
            x = {"x": np.ones((1, 2), np.float32)}
            until_s = time.monotonic() + 20
            others = [
                asyncio.create_task(client.run(x, 1, priority=5, deadline=until_s, sibling=sibling))
                for sibling in (True, True, False)
            ]
            await until("three wait", lambda: there.runner._queue.waiting == 3)
            assert there.runner._queue.siblings == 2
            there.engine.gate.set()
            await asyncio.gather(first, *others)

    asyncio.run(main())


def test_what_a_caller_leaves_behind_is_not_overwritten_while_it_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            client = await there.client()
            whole = free_bytes(client)
            leaving = asyncio.create_task(call(client, LARGE))
            await there.wait_running()
            taken = whole - free_bytes(client)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            staying = asyncio.create_task(call(client, LARGE + 1))
            await until("the next request", lambda: whole - free_bytes(client) == 2 * taken)
            there.engine.gate.set()
            np.testing.assert_array_equal(await staying, (LARGE + 1) * 2)
            np.testing.assert_array_equal(there.engine.seen[-2], LARGE)
            await until("all memory back", lambda: free_bytes(client) == whole)

    asyncio.run(main())


def test_what_a_deadline_leaves_behind_is_not_overwritten_while_it_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            client = await there.client()
            whole = free_bytes(client)
            late = asyncio.create_task(call(client, LARGE, timeout_s=0.3))
            await there.wait_running()
            taken = whole - free_bytes(client)
            with pytest.raises(DeadlineExceeded):
                await late
            await client.stats()  # whatever the host has to say of it, it has said before
            staying = asyncio.create_task(call(client, LARGE + 1))
            await until("the next request", lambda: whole - free_bytes(client) == 2 * taken)
            there.engine.gate.set()
            np.testing.assert_array_equal(await staying, (LARGE + 1) * 2)
            np.testing.assert_array_equal(there.engine.seen[-2], LARGE)
            await until("all memory back", lambda: free_bytes(client) == whole)

    asyncio.run(main())


def test_a_caller_that_leaves_the_queue_frees_place_and_memory_and_is_never_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            client = await there.client()
            whole = free_bytes(client)
            running = asyncio.create_task(call(client, 1))
            await there.wait_running()
            waiting = asyncio.create_task(call(client, LARGE))
            await _until_depth(client, 1)
            waiting.cancel()
            await _until_depth(client, 0)
            await until("its memory back", lambda: free_bytes(client) == whole)
            there.engine.gate.set()
            assert (await running)[0, 0] == 2
            assert all(seen.size < LARGE.size for seen in there.engine.seen)

    asyncio.run(main())


def test_a_deadline_in_the_queue_and_one_in_the_engine(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            client = await there.client()
            whole = free_bytes(client)
            before = time.monotonic()
            running = asyncio.create_task(call(client, LARGE, timeout_s=0.3))
            await there.wait_running()
            waiting = asyncio.create_task(call(client, LARGE, timeout_s=0.3))
            for late in (running, waiting):
                with pytest.raises(DeadlineExceeded):
                    await late
            assert 0.25 < time.monotonic() - before < 10
            await _until_depth(client, 0)
            there.engine.gate.set()
            await until("all memory back", lambda: free_bytes(client) == whole)
            assert (await call(client, 5))[0, 0] == 10

    asyncio.run(main())


def test_a_client_that_is_gone_leaves_no_place_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path, queue_size=4) as there:
            one, other = await there.client(), await there.client()
            tasks = [asyncio.create_task(call(one, LARGE)) for _ in range(4)]
            await there.wait_running()
            await _until_depth(other, 3)
            await one.close()
            for task in tasks:
                with pytest.raises(ShuttingDown):
                    await task
            await _until_depth(other, 0)
            there.engine.gate.set()
            assert (await call(other, 5))[0, 0] == 10

    asyncio.run(main())


def test_the_host_s_queue_bounds_all_clients_together(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path, queue_size=2) as there:
            one, other = await there.client(), await there.client()
            running = asyncio.create_task(call(one, 0))
            await there.wait_running()
            waiting = [asyncio.create_task(call(client, 1)) for client in (one, other)]
            await _until_depth(one, 2)
            with pytest.raises(QueueFull) as refusal:
                await call(other, 9)
            assert refusal.value.retry_after_s == 1
            there.engine.gate.set()
            assert [float(answer[0, 0]) for answer in await asyncio.gather(running, *waiting)] == [0, 2, 2]

    asyncio.run(main())


def test_a_full_arena_and_a_frame_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_link, "ARENA_BYTES", MIB)
    monkeypatch.setattr(host, "ANSWER_ARENA_BYTES", MIB)

    async def main() -> None:
        async with InProcess(tmp_path) as there:
            there.engine.gate.set()
            client = await there.client()
            answers = await asyncio.gather(*(call(client, LARGE + i) for i in range(3)))
            for i, answer in enumerate(answers):
                np.testing.assert_array_equal(answer, (LARGE + i) * 2)
            monkeypatch.setattr(wire, "MAX_BODY_BYTES", 5 * MIB)
            with pytest.raises(TooLarge):
                await call(client, np.zeros((1, 2 * MIB), np.float32))
            monkeypatch.setattr(wire, "MAX_BODY_BYTES", 2 * MIB)
            assert (await call(client, 5))[0, 0] == 10, "the connection serves on"
            assert client.losses == 0
            assert not client._pending

    asyncio.run(main())


def test_an_answer_that_is_too_large_is_an_error_of_its_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ANSWER_ARENA_BYTES", MIB)
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", MIB)

    async def main() -> None:
        async with InProcess(tmp_path) as there:
            there.engine.gate.set()
            client = await there.client()
            with pytest.raises(TooLarge):
                await call(client, LARGE)
            assert (await call(client, 5))[0, 0] == 10
            assert client.losses == 0

    asyncio.run(main())


def test_a_request_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            there.engine.gate.set()
            client = await there.client()
            link = client._link
            assert link is not None
            answers: list[dict[str, Any]] = []
            link._on_answer = lambda link, header, body: answers.append(header)
            for described in ([["x", "<f4", [1 << 40], "arena", 0]], [["x", "<f4", [5], "body", 0, 999]], [7]):
                link._protocol.send({"k": "run", "id": 1, "t": described, "n": 1, "p": 5, "d": 1e12, "s": False})
            await until("three answers", lambda: len(answers) == 3)
            assert {answer["code"] for answer in answers} == {"run_failed"}
            assert (await (await there.client()).stats()).depth == 0

    asyncio.run(main())


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read(1)
    writer.close()


def _greeting(data: bytes) -> Callable[[socket.socket], None]:
    def greet(peer: socket.socket) -> None:
        own, other = socket.socketpair()
        with own, other:
            socket.send_fds(peer, [struct.pack("<I", len(data))], [own.fileno(), other.fileno()])
            peer.sendall(data)

    return greet


def _too_few(peer: socket.socket) -> None:
    with socket.socket() as one:
        socket.send_fds(peer, [struct.pack("<I", 2)], [one.fileno()])
        peer.sendall(b"{}")


def _much_too_long(peer: socket.socket) -> None:
    own, other = socket.socketpair()
    with own, other:
        socket.send_fds(peer, [struct.pack("<I", 1 << 31)], [own.fileno(), other.fileno()])


@pytest.mark.parametrize("serve", [_silence, _noise])
def test_what_is_not_a_host_is_refused(tmp_path: Path, serve: Callable[..., Awaitable[None]]) -> None:
    async def main() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "host.sock")
        await _refused(tmp_path / "host.sock")
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "greet",
    [
        _greeting(b"{}"),
        _greeting(b"[]"),
        _greeting(b"nonsense"),
        _greeting(b'{"connection":1,"room":1,"signature":{}}'),
        _too_few,
        _much_too_long,
    ],
)
def test_a_malformed_greeting_is_refused(tmp_path: Path, greet: Callable[[socket.socket], None]) -> None:
    def answer(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):  # the client may be gone already
                _, fds, _, _ = socket.recv_fds(peer, 1, 1)
                socket.close(fds[0])
                greet(peer)
                peer.recv(1)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "host.sock"))
        listener.listen()
        answering = threading.Thread(target=answer, args=[listener])
        answering.start()
        try:
            asyncio.run(_refused(tmp_path / "host.sock"))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            answering.join(10)


async def _refused(path: Path) -> None:
    """Starting on it fails, again and again, and holds nothing afterwards."""
    held = (0, 0, 0)
    for turn in range(4):
        client = HostClient(path, 8)
        with pytest.raises(LoadFailed, match="does not answer"):
            await client.start(lambda state: None)
        await client.close()
        del client
        if turn <= 1:  # the loop itself opens something at its first connection
            await asyncio.sleep(0.05)  # for the other end to close its own
            held = holdings()
        else:
            await _until_no_more_than(held)


async def _until_no_more_than(held: tuple[int, int, int]) -> None:
    """Wait until all that came since is let go."""
    await until("all let go", lambda: all(now <= then for now, then in zip(holdings(), held, strict=True)))


def test_callers_that_do_not_greet_hold_up_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcess(tmp_path) as there:
            there.engine.gate.set()
            for _ in range(2):  # the loop itself opens something at its first connection
                await (await there.client()).close()
                await asyncio.sleep(0.05)
            before = holdings()
            strangers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for stranger in strangers:
                stranger.connect(str(there.path))
            strangers[1].send(b"GET / HTTP/1.1\r\n\r\n")
            strangers[2].shutdown(socket.SHUT_WR)
            client = await there.client()
            assert (await call(client, 2))[0, 0] == 4
            await client.close()
            for stranger in strangers:
                stranger.close()
            await _until_no_more_than(before)

    asyncio.run(main())


async def _until_depth(client: HostClient, depth: int) -> None:
    async with asyncio.timeout(10):
        while (await client.stats()).depth != depth:
            await asyncio.sleep(0.005)
