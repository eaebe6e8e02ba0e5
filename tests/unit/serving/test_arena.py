from __future__ import annotations

import os
import random

import numpy as np
import pytest

from core.serving.arena import KEEP_BYTES, Arena, ArenaView, Block, map_file, shared_file

RNG = np.random.default_rng(7)


def _pair(size: int) -> tuple[Arena, ArenaView]:
    arena = Arena(size)
    return arena, ArenaView(os.dup(arena.fd))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum("pulvinar" in line for line in maps)


@pytest.mark.parametrize(
    "array",
    [
        RNG.random((3, 5, 7)).astype(np.float32),
        np.asfortranarray(RNG.random((6, 8))),
        RNG.random((10, 12))[::2, ::-3],
        RNG.integers(0, 99, (4, 4)).astype(">i4"),
        np.array(3.5),
        np.empty((0, 3), np.float64),
        np.array([True, False]),
        RNG.random(9).astype(np.float16),
        np.array([["a", "bc"]]),
    ],
)
def test_the_other_side_reads_what_was_put(array: np.ndarray) -> None:
    arena, view = _pair(1 << 16)
    arena.put(np.ones(3))  # so that it does not begin at 0
    block = arena.put(array)
    assert block is not None
    seen = view.array(block[0], array.dtype, array.shape)
    assert seen.dtype == array.dtype
    assert seen.shape == array.shape
    np.testing.assert_array_equal(seen, array)
    assert not seen.flags.writeable
    arena.close()


def test_a_block_that_does_not_fit_is_refused_and_nothing_is_taken() -> None:
    arena, _ = _pair(4096)
    assert arena.put(np.zeros(4097, np.uint8)) is None
    assert arena.free_bytes == 4096
    whole = arena.put(np.zeros(4096, np.uint8))
    assert whole == (0, 4096)
    assert arena.put(np.zeros(1, np.uint8)) is None
    arena.free(whole)
    assert arena.free_bytes == 4096
    arena.close()


def test_blocks_given_back_in_any_order_grow_together_and_never_overlap() -> None:
    arena, view = _pair(1 << 20)
    held: list[tuple[Block, np.ndarray]] = []
    chance = random.Random(11)
    for step in range(3000):
        if held and (chance.random() < 0.5 or arena.free_bytes < 50_000):
            block, array = held.pop(chance.randrange(len(held)))
            np.testing.assert_array_equal(view.array(block[0], array.dtype, array.shape), array)
            arena.free(block)
        else:
            array = np.full(chance.randrange(1, 20_000), step % 251, np.uint8)
            taken = arena.put(array)
            if taken is not None:
                held.append((taken, array))
    assert len(held) > 3
    for block, array in held:
        np.testing.assert_array_equal(view.array(block[0], array.dtype, array.shape), array)
        arena.free(block)
    assert arena.put(np.zeros(1 << 20, np.uint8)) == (0, 1 << 20)
    arena.close()


@pytest.mark.parametrize(
    ("offset", "dtype", "shape"),
    [(-64, "f4", (1,)), (0, "f4", (1025,)), (4096, "f4", (1,)), (0, "f4", (-1,)), (64, "f8", (512,))],
)
def test_what_lies_outside_is_not_read(offset: int, dtype: str, shape: tuple[int, ...]) -> None:
    arena, view = _pair(4096)
    with pytest.raises(ValueError, match="does not lie in the arena"):
        view.array(offset, np.dtype(dtype), shape)
    arena.close()


def test_nothing_can_shorten_the_file_under_a_reader() -> None:
    fd = shared_file("test", 4096)
    for size in (0, 8192):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.close(fd)


def test_memory_and_descriptors_come_back() -> None:
    before = _descriptors(), _mappings()
    for _ in range(50):
        arena, view = _pair(1 << 20)
        block = arena.put(np.ones(1000))
        assert block is not None
        view.array(block[0], np.dtype("f8"), (1000,))
        arena.close()
        arena.close()
        del view
    assert (_descriptors(), _mappings()) == before
    assert arena.put(np.ones(5)) is None, "a closed arena takes nothing"


def test_what_the_other_side_has_mapped_outlives_the_owner() -> None:
    arena, view = _pair(1 << 16)
    block = arena.put(np.arange(100))
    assert block is not None
    seen = view.array(block[0], np.dtype("i8"), (100,))
    arena.close()
    del view
    np.testing.assert_array_equal(seen, np.arange(100))


def test_pages_of_a_burst_are_given_back_once_the_arena_is_empty() -> None:
    arena, view = _pair(2 * KEEP_BYTES)
    small = arena.put(np.ones(64, np.uint8))
    burst = arena.put(np.ones(2 * KEEP_BYTES - 4096, np.uint8))
    assert small is not None
    assert burst is not None
    arena.free(burst)
    assert os.fstat(arena.fd).st_blocks * 512 > KEEP_BYTES * 3 // 2
    arena.free(small)
    assert os.fstat(arena.fd).st_blocks * 512 <= KEEP_BYTES
    again = arena.put(np.full(2 * KEEP_BYTES, 7, np.uint8))
    assert again is not None
    assert (view.array(0, np.dtype("u1"), (2 * KEEP_BYTES,)) == 7).all()
    arena.close()


def test_a_descriptor_that_cannot_be_mapped_is_closed() -> None:
    reading, writing = os.pipe()
    with pytest.raises((OSError, ValueError)):
        map_file(reading)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)
