from __future__ import annotations

import asyncio

import pytest

from core.access.passwords import check_password, hash_password, verify_password
from core.errors import Unprocessable


def test_a_password_is_known_by_its_hash_alone() -> None:
    async def run() -> None:
        one, two = await hash_password("correct horse"), await hash_password("correct horse")
        assert one != two
        assert one.startswith("$argon2id$")
        assert len(one) <= 255
        assert await verify_password(one, "correct horse")
        assert not await verify_password(one, "correct horsf")
        assert not await verify_password(one, "")

    asyncio.run(run())


def test_any_text_may_be_a_password() -> None:
    async def run() -> None:
        for password in ("pässwörd ✓✓", "with\0nul inside", "half a pair \ud800", "x" * 1024):
            assert await verify_password(await hash_password(password), password)

    asyncio.run(run())


def test_nobody_matches_nothing() -> None:
    async def run() -> None:
        assert not await verify_password(None, "the password of nobody")
        assert not await verify_password("not a hash", "correct horse")

    asyncio.run(run())


def test_what_is_cut_off_does_not_match() -> None:
    async def run() -> None:
        known = await hash_password("x" * 1024)
        assert not await verify_password(known, "x" * 1025)

    asyncio.run(run())


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_too_short_and_too_long_are_refused(password: str) -> None:
    with pytest.raises(Unprocessable, match="A password has at"):
        asyncio.run(hash_password(password))


@pytest.mark.parametrize(
    "password",
    ["password", "Password1!", "PASSWORD2024", "12345678", "qwertyuiop", "aaaaaaaa", "12121212", "letmein!!!",
     "1q2w3e4r", "adminadmin", "Pulvinar2026", "qwerty123456", "iloveyou", "87654321", "12341234", " Welcome1 "],
)  # fmt: skip
def test_what_is_guessed_first_is_refused(password: str) -> None:
    with pytest.raises(Unprocessable, match="first that are guessed"):
        check_password(password)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "a long password", "new password", "passwort mit hut"]
)
def test_what_only_begins_like_one_is_not(password: str) -> None:
    check_password(password)


def test_ones_own_name_is_refused() -> None:
    for password in ("ada.lovelace", "ADA.LOVELACE", "ada.lovelaceada.lovelace", "ecalevol.ada"):
        with pytest.raises(Unprocessable, match="first that are guessed"):
            check_password(password, "ada.lovelace")
    check_password("ada.lovelace", "charles")


def test_hashing_does_not_hold_up_the_loop() -> None:
    async def run() -> int:
        work = asyncio.gather(*(hash_password("correct horse") for _ in range(8)))
        turns = 0
        while not work.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(set(await work)) == 8
        return turns

    assert asyncio.run(run()) > 200
