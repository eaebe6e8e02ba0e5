from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from core.errors import TooLarge
from core.serving import wire
from core.serving.arena import Arena, ArenaView
from core.serving.wire import INLINE_BYTES, MAX_FRAME_BYTES, FrameProtocol, pack_tensors, unpack_tensors
from core.signature import NUMPY_DTYPES

RNG = np.random.default_rng(3)
BIG = RNG.random((64, 1024)).astype(np.float32)


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(1 << 20)
    yield arena
    arena.close()


@pytest.fixture
def view(arena: Arena) -> ArenaView:
    return ArenaView(os.dup(arena.fd))


def _there_and_back(tensors: dict[str, Any], arena: Arena, view: ArenaView) -> dict[str, np.ndarray]:
    described, body, _ = pack_tensors(tensors, arena)
    return unpack_tensors(orjson.loads(orjson.dumps(described)), bytearray(b"".join(body)), view)


def _same(got: np.ndarray, sent: np.ndarray) -> None:
    assert got.dtype == sent.dtype
    assert got.shape == sent.shape
    if sent.dtype == np.object_:
        assert got.tolist() == sent.tolist()
    else:
        assert got.tobytes() == sent.tobytes()


@pytest.mark.parametrize("dtype", sorted(set(NUMPY_DTYPES) - {"BYTES"}))
@pytest.mark.parametrize("count", [7, INLINE_BYTES + 1])
def test_every_dtype_small_and_large(dtype: str, count: int, arena: Arena, view: ArenaView) -> None:
    sent = RNG.integers(0, 2, (count, 1)).astype(NUMPY_DTYPES[dtype])
    _same(_there_and_back({"x": sent}, arena, view)["x"], sent)


@pytest.mark.parametrize(
    "sent",
    [
        np.array(5, np.int16),
        np.array("word", np.object_),
        np.empty((0, 4), np.float32),
        np.empty((3, 0, 2), np.object_),
        np.asfortranarray(RNG.random((5, 6))),
        np.asfortranarray(BIG),
        BIG[::3, ::-2],
        RNG.random((4, 9))[:, ::2],
        RNG.integers(0, 9, 12).astype(">i4"),
        BIG.astype(">f8")[:, :100],
        np.broadcast_to(np.float32(2), (100, 200)),
        np.array(["text", b"\x00\xff bytes", "", b"", "é\n", "\ud800"], np.object_).reshape(2, 3),
        np.array(["x" * INLINE_BYTES * 2, b"y"], np.object_),
    ],
)
def test_every_form_of_array(sent: np.ndarray, arena: Arena, view: ArenaView) -> None:
    _same(_there_and_back({"x": sent}, arena, view)["x"], sent)


def test_several_tensors_keep_their_places_and_numbers_are_aligned(arena: Arena, view: ArenaView) -> None:
    sent = {
        "strings": np.array(["abc"], np.object_),
        "one": np.array([1], np.int8),
        "doubles": RNG.random(3),
        "big": BIG,
        "none": np.empty(0, np.float32),
        "last": np.array([2, 3], np.int64),
    }
    got = _there_and_back(sent, arena, view)
    assert list(got) == list(sent)
    for name, array in sent.items():
        _same(got[name], array)
        assert got[name].flags.aligned
    assert not got["big"].flags.writeable
    assert got["doubles"].flags.writeable, "what came in the frame belongs to the reader"


def test_a_full_arena_sends_arrays_in_the_frame(arena: Arena, view: ArenaView) -> None:
    sent = {f"x{i}": BIG + i for i in range(6)}  # 256 KiB each, of which 4 fit
    described, _, blocks = pack_tensors(sent, arena)
    assert [one[3] for one in described] == ["arena"] * 4 + ["body"] * 2
    for block in blocks:
        arena.free(block)
    got = _there_and_back(sent, arena, view)
    for name, array in sent.items():
        _same(got[name], array)


def test_what_is_too_much_for_a_frame_is_refused_and_leaves_nothing(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 1 << 21)
    with pytest.raises(TooLarge):
        pack_tensors({"in": BIG, "out": np.zeros(3 << 20, np.uint8)}, arena)
    assert arena.free_bytes == arena.size_bytes
    with pytest.raises(TooLarge):
        pack_tensors({"in": BIG, "words": np.array(["x" * (3 << 20)], np.object_)}, arena)
    assert arena.free_bytes == arena.size_bytes


@pytest.mark.parametrize(
    "described",
    [
        [["x", "<f4", [9], "arena", 1 << 20]],
        [["x", "<f4", [2], "body", 0, 4]],
        [["x", "<f4", [1], "body", 999, 4]],
        [["x", "no such", [1], "body", 0, 4]],
    ],
)
def test_a_description_of_what_is_not_there(described: list[Any], view: ArenaView) -> None:
    with pytest.raises((ValueError, TypeError)):
        unpack_tensors(described, bytearray(4), view)


class Ends:
    """Two protocols on one socket pair, and what each has received."""

    def __init__(self) -> None:
        self.frames: list[tuple[dict[str, Any], bytes]] = []
        self.lost = asyncio.Event()
        self.came = asyncio.Event()
        self.here = FrameProtocol(lambda header, body: None, lambda: None)
        self.there = FrameProtocol(self._note, self.lost.set)
        self.raw: socket.socket | None = None

    def _note(self, header: dict[str, Any], body: bytearray) -> None:
        self.frames.append((header, bytes(body)))
        self.came.set()
        if header.get("fail"):
            raise RuntimeError("to order")

    async def connect(self, *, raw: bool = False) -> None:
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        await loop.create_unix_connection(lambda: self.there, sock=other)
        if raw:
            one.setblocking(False)
            self.raw = one
        else:
            await loop.create_unix_connection(lambda: self.here, sock=one)

    async def wait_frames(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.frames) < count:
                self.came.clear()
                await self.came.wait()

    def close(self) -> None:
        self.here.close()
        self.there.close()
        if self.raw is not None:
            self.raw.close()


def test_frames_of_all_sizes_arrive_whole_and_in_order() -> None:
    async def main() -> None:
        ends = Ends()
        await ends.connect()
        sizes = [0, 1, 100, INLINE_BYTES, INLINE_BYTES + 1, 3 << 20, 5]
        for number, size in enumerate(sizes):
            assert ends.here.send({"n": number}, [bytes([number]) * size, b"!"])
        await ends.wait_frames(len(sizes))
        assert [header["n"] for header, _ in ends.frames] == list(range(len(sizes)))
        for number, size in enumerate(sizes):
            assert ends.frames[number][1] == bytes([number]) * size + b"!"
        ends.close()

    asyncio.run(main())


def test_a_frame_in_pieces() -> None:
    async def main() -> None:
        ends = Ends()
        await ends.connect(raw=True)
        assert ends.raw is not None
        header = b'{"n":1}'
        for byte in struct.pack("<II", len(header), 3) + header + b"abc":
            await asyncio.get_running_loop().sock_sendall(ends.raw, bytes([byte]))
            await asyncio.sleep(0)
        await ends.wait_frames(1)
        assert ends.frames == [({"n": 1}, b"abc")]
        ends.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<II", 10, MAX_FRAME_BYTES),
        struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("<II", 4, 0) + b"{no}",
        struct.pack("<II", 0, 0),
        struct.pack("<II", 13, 0) + b'{"fail":true}',
    ],
)
def test_a_stream_that_is_not_frames_ends_the_connection_and_takes_no_memory(data: bytes) -> None:
    async def main() -> None:
        ends = Ends()
        await ends.connect(raw=True)
        assert ends.raw is not None
        await asyncio.get_running_loop().sock_sendall(ends.raw, data)
        async with asyncio.timeout(10):
            await ends.lost.wait()
        assert not ends.there.is_open
        assert not ends.there.send({"n": 1})
        ends.close()

    asyncio.run(main())


def test_sending_to_a_connection_that_is_gone_says_so() -> None:
    async def main() -> None:
        ends = Ends()
        assert not ends.here.send({"n": 1}), "never connected"
        await ends.connect()
        assert ends.here.send({"n": 1})
        await ends.wait_frames(1)
        ends.here.close()
        assert not ends.here.send({"n": 2})
        async with asyncio.timeout(10):
            await ends.lost.wait()
        assert len(ends.frames) == 1

    asyncio.run(main())
