"""How a server and an engine host greet each other: each hands over descriptors of its shared memory.

The client sends one byte with its arena; the host answers a length and a JSON greeting, with its own arena and
its flight recorder. Nothing here blocks; both ends give up after `HANDSHAKE_S`.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

HANDSHAKE_S = 10.0
MAX_GREETING_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")


async def greet_client(peer: socket.socket, greeting: dict[str, Any], fds: Sequence[int]) -> int:
    """The host's part; answers the descriptor of the client's arena. Raises OSError, TimeoutError, ValueError."""
    async with asyncio.timeout(HANDSHAKE_S):
        _, received = await _receive(peer, 1, 1)
        try:
            data = orjson.dumps(greeting)
            socket.send_fds(peer, [_LENGTH.pack(len(data))], fds)
            await asyncio.get_running_loop().sock_sendall(peer, data)
        except BaseException:
            _close(received)
            raise
        return received[0]


async def greet_host(peer: socket.socket, path: Path, fd: int) -> tuple[dict[str, Any], list[int]]:
    """The client's part: connects, and answers the greeting and the host's two descriptors.

    Raises OSError, TimeoutError, or ValueError where the other end is no host.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(HANDSHAKE_S):
        await loop.sock_connect(peer, str(path))
        socket.send_fds(peer, [b"\0"], [fd])
        head, received = await _receive(peer, _LENGTH.size, 2)
        try:
            (size,) = _LENGTH.unpack(head)
            return await _greeting(peer, size), received
        except BaseException:
            _close(received)
            raise


async def _greeting(peer: socket.socket, size: int) -> dict[str, Any]:
    if size > MAX_GREETING_BYTES:
        raise ValueError("the greeting is too long")
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        chunk = await loop.sock_recv(peer, size - len(data))
        if not chunk:
            raise ValueError("the greeting ends early")
        data += chunk
    greeting = orjson.loads(data)
    if not isinstance(greeting, dict):
        raise ValueError("the greeting is not an object")
    return greeting


async def _receive(peer: socket.socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """The first `size` bytes with the `count` descriptors that come along. Raises ValueError for anything else."""
    while True:
        try:
            data, fds, flags = _receive_now(peer, size, count)
            break
        except BlockingIOError:
            await _readable(peer)
    if len(data) != size or len(fds) != count or flags & socket.MSG_CTRUNC:
        _close(fds)
        raise ValueError("the other end did not greet")
    return data, fds


def _receive_now(peer: socket.socket, size: int, count: int) -> tuple[bytes, list[int], int]:
    # Not socket.recv_fds: it leaves descriptors inheritable by a child that is started at this moment.
    fds = array.array("i")
    data, messages, flags, _ = peer.recvmsg(size, socket.CMSG_LEN(count * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds), flags


async def _readable(peer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(peer.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(peer.fileno())


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
