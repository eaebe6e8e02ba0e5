from __future__ import annotations

import asyncio
import json
import stat
import time
from pathlib import Path

import pytest

from core.access import key_ring
from core.access.key_ring import FIRST, KeyRing, facts_of, read_keys
from core.errors import Conflict, NotFound
from core.settings import InvalidSettings

LIFE_S = 1800.0


def ring(folder: Path) -> KeyRing:
    made = KeyRing(folder, LIFE_S)
    made.load()
    return made


def states(folder: Path, later_s: float = 0) -> dict[str, str]:
    return {facts.kid: facts.state for facts in facts_of(read_keys(folder), LIFE_S, time.time() + later_s)}


def test_keys_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ring(folder)
    key_ring.rotate(folder, LIFE_S)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_all_processes_sign_with_a_new_key_at_once_and_believe_the_old_one(tmp_path: Path) -> None:
    async def work() -> None:
        one, other = ring(tmp_path), ring(tmp_path)
        old = await one.current()
        assert old.kid == FIRST
        made = key_ring.rotate(tmp_path, LIFE_S)
        await asyncio.sleep(0.06)  # the soonest that a process looks again
        assert (await one.current()).kid == made.kid
        assert await other.find(made.kid) == await one.current()
        assert await other.find(FIRST) == await other.find("") == old
        for stranger in ("../jwt", "f" * 16, "\0", "x" * 10_000):
            assert await other.find(stranger) is None

    asyncio.run(work())


def test_an_old_key_ends_with_its_last_token_and_its_file_with_the_next_rotation(tmp_path: Path) -> None:
    read_keys(tmp_path)
    second = key_ring.rotate(tmp_path, LIFE_S).kid
    assert states(tmp_path) == {FIRST: "verifying", second: "signing"}
    assert states(tmp_path, LIFE_S + 120)[FIRST] == "over"

    async def late() -> None:
        later = KeyRing(tmp_path, LIFE_S, lambda: time.time() + LIFE_S + 120)
        later.load()
        assert await later.find(FIRST) is None
        assert await later.find(second) is not None

    asyncio.run(late())
    third = key_ring.rotate(tmp_path, -120.0).kid  # as if tokens lived for no time at all
    assert states(tmp_path) == {second: "verifying", third: "signing"}
    assert not (tmp_path / "jwt.key").exists()
    ring(tmp_path)
    assert not (tmp_path / "jwt.key").exists()


def test_a_key_may_be_brought_elsewhere_before_it_signs(tmp_path: Path) -> None:
    async def work() -> None:
        here = ring(tmp_path)
        made = key_ring.rotate(tmp_path, LIFE_S, activate_in_s=600)
        assert states(tmp_path) == {FIRST: "signing", made.kid: "next"}
        assert (await here.current()).kid == FIRST
        assert (await here.find(made.kid)) is not None  # where it signs already, by a clock that is ahead
        assert states(tmp_path, 601) == {FIRST: "verifying", made.kid: "signing"}

    asyncio.run(work())


def test_a_key_that_has_leaked_is_believed_no_more(tmp_path: Path) -> None:
    read_keys(tmp_path)
    with pytest.raises(Conflict):
        key_ring.remove(tmp_path, LIFE_S, FIRST)
    key_ring.rotate(tmp_path, LIFE_S)
    for stranger in ("../jwt", "nothing"):
        with pytest.raises(NotFound):
            key_ring.remove(tmp_path, LIFE_S, stranger)
    assert key_ring.remove(tmp_path, LIFE_S, FIRST).state == "verifying"
    assert FIRST not in states(tmp_path)


def test_a_key_that_others_can_read_or_that_is_damaged_stops_the_start(tmp_path: Path) -> None:
    read_keys(tmp_path)
    made = key_ring.rotate(tmp_path, LIFE_S).kid
    path = tmp_path / f"jwt-{made}.json"
    whole = path.read_text()
    for text in (
        "",
        "[]",
        "{}",
        whole.replace(made, "0" * 16),
        json.dumps({**json.loads(whole), "secret": "c2hvcnQ="}),
    ):
        path.write_text(text)
        with pytest.raises(InvalidSettings, match="is damaged"):
            read_keys(tmp_path)
    path.write_text(whole)
    for file in (path, tmp_path / "jwt.key"):
        file.chmod(0o640)
        with pytest.raises(InvalidSettings, match="Others may read"):
            read_keys(tmp_path)
        file.chmod(0o600)
    assert len(read_keys(tmp_path)) == 2


def test_a_key_that_becomes_unreadable_does_not_stop_who_serves(tmp_path: Path) -> None:
    async def work() -> None:
        here = ring(tmp_path)
        (tmp_path / "jwt-broken.json").touch(mode=0o600)
        await asyncio.sleep(0.06)
        assert (await here.current()).kid == FIRST

    asyncio.run(work())


def test_no_secret_is_in_what_a_key_says_of_itself(tmp_path: Path) -> None:
    (key,) = read_keys(tmp_path)
    assert "secret" not in repr(key)
    assert key.secret.hex() not in repr(key)
