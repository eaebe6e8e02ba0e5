from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import NotFound, StorageFull, TooLarge
from core.store.artifacts import ArtifactStore
from core.store.uploads import Received

MIB = 1 << 20
SHA = "ab" * 32


def make_store(root: Path, *, max_bytes: int = 8 * MIB, min_free_bytes: int = 0) -> ArtifactStore:
    return ArtifactStore(root, max_bytes=max_bytes, min_free_bytes=min_free_bytes)


async def receive(store: ArtifactStore, *chunks: bytes) -> Received:
    async with store.receive() as upload:
        for chunk in chunks:
            await upload.write(chunk)
        return await upload.finish()


def files_below(root: Path) -> list[Path]:
    """All but the locks, which hold nothing."""
    return [path for path in root.rglob("*") if not path.is_dir() and path.parent.name not in ("owners", "locks")]


def staged_with(store: ArtifactStore, content: bytes) -> Path:
    staged = store.stage()
    (staged / "sub").mkdir()
    (staged / "model.onnx").write_bytes(content)
    (staged / "sub" / "w.bin").write_bytes(b"w")
    return staged


def test_an_upload_is_written_and_hashed(tmp_path: Path) -> None:
    chunks = [os.urandom(700_000) for _ in range(5)] + [b""]
    received = asyncio.run(receive(make_store(tmp_path), *chunks))
    assert received.path.read_bytes() == b"".join(chunks)
    assert received.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert received.size_bytes == 3_500_000
    assert stat.S_IMODE(received.path.stat().st_mode) == 0o600


def test_a_finished_upload_can_be_discarded(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    async def scenario() -> None:
        await store.discard(await receive(store, b"x"))

    asyncio.run(scenario())
    assert files_below(tmp_path) == []


def test_an_upload_left_early_leaves_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    async def scenario() -> int:
        async with store.receive() as upload:
            await upload.write(bytes(3 * MIB))
            return len(files_below(tmp_path))

    assert asyncio.run(scenario()) == 1
    assert files_below(tmp_path) == []


def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path, max_bytes=1 << 40)

    async def upload_forever(began: asyncio.Event) -> None:
        async with store.receive() as upload:
            while True:
                await upload.write(bytes(2 * MIB))
                began.set()

    async def scenario() -> None:
        began = asyncio.Event()
        task = asyncio.create_task(upload_forever(began))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert files_below(tmp_path) == []


def test_the_cap_holds_and_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path, max_bytes=10)
    with pytest.raises(TooLarge, match="cap of 10 bytes"):
        asyncio.run(receive(store, b"12345", b"678901"))
    assert files_below(tmp_path) == []
    assert asyncio.run(receive(store, b"1234567890")).size_bytes == 10


def test_a_stated_length_over_the_cap_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_store(tmp_path, max_bytes=10).receive(expected_bytes=11):
            raise AssertionError("entered")

    with pytest.raises(TooLarge):
        asyncio.run(scenario())
    assert files_below(tmp_path) == []


def test_free_space_is_kept(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        asyncio.run(receive(make_store(tmp_path, min_free_bytes=1 << 60), b"x"))
    assert files_below(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "probe").write_bytes(bytes(8 * MIB))
    (small_disk / "probe").unlink()
    store = make_store(small_disk)
    with pytest.raises(StorageFull, match="no room"):
        asyncio.run(receive(store, *[bytes(MIB)] * 6))
    assert files_below(small_disk) == []
    assert asyncio.run(receive(store, bytes(MIB))).size_bytes == MIB
    store.close()


def test_an_artifact_is_published_read_only(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    root = asyncio.run(store.publish(staged_with(store, b"model"), SHA))
    assert root == store.path(SHA) == tmp_path / "ab" / SHA
    assert (root / "model.onnx").read_bytes() == b"model"
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o222 for path in (root, *root.rglob("*"))}
    assert modes == {0}
    assert store.exists(SHA)
    assert list(store.addresses()) == [SHA]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_same_bytes_are_kept_once_whoever_comes_first(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    async def scenario() -> set[Path]:
        staged = [staged_with(store, b"model") for _ in range(8)]
        return set(await asyncio.gather(*(store.publish(one, SHA) for one in staged)))

    assert asyncio.run(scenario()) == {store.path(SHA)}
    assert len(files_below(tmp_path)) == 3, "the model, its manifest and their sums"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_an_artifact_can_be_removed_and_removed_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    async def scenario() -> None:
        await store.publish(staged_with(store, b"model"), SHA)
        await store.remove(SHA)
        assert not store.exists(SHA)
        await store.remove(SHA)

    asyncio.run(scenario())
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("address", ["", "../../etc", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_only_a_sha256_is_an_address(tmp_path: Path, address: str) -> None:
    with pytest.raises(NotFound):
        make_store(tmp_path).path(address)


def test_what_an_abrupt_end_left_is_swept_and_what_is_fresh_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    old_file, old_stage, fresh = tmp_path / "incoming/old", staged_with(store, b"x"), staged_with(store, b"y")
    old_file.write_bytes(b"x")
    for path in (old_file, old_stage, *old_stage.rglob("*")):
        os.utime(path, (0, 0))
    assert asyncio.run(store.sweep_incoming(3600)) == 2
    assert list((tmp_path / "incoming").iterdir()) == [fresh]
    assert asyncio.run(make_store(tmp_path / "new").sweep_incoming(0)) == 0
