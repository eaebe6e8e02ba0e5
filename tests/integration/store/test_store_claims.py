"""Two processes on one store: what the dead have left is cleared, what the living are at is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from core.store.artifacts import ArtifactStore
from core.store.claims import Claims
from tests.servers import ROOT

SHA = "ab" * 32
# Another process, which has begun an upload and a change of an artifact, and says so.
OTHER = """
import asyncio, sys
from pathlib import Path
from core.store.artifacts import ArtifactStore

async def work():
    store = ArtifactStore(Path(sys.argv[1]), max_bytes=1 << 20, min_free_bytes=0)
    async with store.receive() as upload, store.changing([sys.argv[2]]):
        await upload.write(b"x" * 1000)
        await store.publish(store.stage(), sys.argv[2])
        print("at work", flush=True)
        await asyncio.sleep(60)

asyncio.run(work())
"""


def store_at(root: Path) -> ArtifactStore:
    return ArtifactStore(root, max_bytes=1 << 20, min_free_bytes=0)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER, str(tmp_path), SHA]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        yield process
        process.kill()


async def clear(store: ArtifactStore) -> tuple[int, list[str]]:
    forgotten: list[str] = []

    async def forget(sha256: str) -> None:
        forgotten.append(sha256)
        await store.remove(sha256)

    return await store.clear_after_the_dead(forget), forgotten


def test_what_a_killed_process_has_left_is_cleared_and_what_a_living_one_is_at_is_not(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    store = store_at(tmp_path)
    assert asyncio.run(clear(store)) == (0, [])
    assert len(list((tmp_path / "incoming").iterdir())) == 2
    assert store.exists(SHA)
    other.kill()
    other.wait()
    assert asyncio.run(clear(store)) == (2, [SHA])
    assert not store.exists(SHA)
    assert [*(tmp_path / "incoming").iterdir()] == []
    assert asyncio.run(clear(store)) == (0, [])
    store.close()
    assert [*(tmp_path / "owners").iterdir()] == []


def test_what_cannot_be_undone_now_is_left_for_the_next_start(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.kill()
    other.wait()
    store = store_at(tmp_path)

    async def away(sha256: str) -> None:
        raise OSError("the database is away")

    with pytest.raises(OSError, match="away"):
        asyncio.run(store.clear_after_the_dead(away))
    assert asyncio.run(clear(store)) == (2, [SHA])


def test_an_address_is_one_process_s_at_a_time(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    store = store_at(tmp_path)

    async def change(address: str) -> None:
        async with asyncio.timeout(0.3), store.changing([address, "01" * 32]):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(change(SHA))
    asyncio.run(change("cd" * 32))
    other.kill()
    other.wait()
    asyncio.run(change(SHA))
    assert len([*(tmp_path / "incoming").iterdir()]) == 2, "only what the other one had left"


class Slow(Claims):
    """Its notes come late, as on a disk that is busy."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def _note(self, addresses: Collection[str], notes: list[Path]) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        super()._note(addresses, notes)


def test_who_is_cancelled_as_a_change_begins_leaves_no_note_of_it(tmp_path: Path) -> None:
    async def test() -> None:
        claims = Slow(tmp_path)

        async def change() -> None:
            async with claims.changing([SHA]):
                pass

        changing = asyncio.create_task(change())
        await asyncio.to_thread(claims.begun.wait, 30)
        changing.cancel()
        await asyncio.sleep(0)
        claims.go_on.set()
        await asyncio.wait([changing])
        assert changing.cancelled()
        await asyncio.get_running_loop().shutdown_default_executor()  # what was begun in a thread has ended
        assert not claims.is_being_changed(SHA)

    asyncio.run(test())


def test_one_who_is_cleared_up_while_coming_takes_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = tmp_path / "owners"
    names = iter(["0" * 12, "1" * 12])

    def token_hex(size: int) -> str:
        if size != 6:
            return "f" * 32
        for path in owners.iterdir():  # as somebody who clears up does, at the worst moment
            path.unlink()
        return next(names)

    import core.store.claims as claims

    real_try = claims._try_lock

    def lock_after_it_was_cleared(file: int) -> bool:
        (owners / ("0" * 12)).unlink(missing_ok=True)
        return real_try(file)

    monkeypatch.setattr(claims.secrets, "token_hex", token_hex)
    monkeypatch.setattr(claims, "_try_lock", lock_after_it_was_cleared)
    mine = Claims(tmp_path)
    assert mine.new_name() == "1" * 12 + "-" + "f" * 32
    assert [path.name for path in owners.iterdir()] == ["1" * 12]
