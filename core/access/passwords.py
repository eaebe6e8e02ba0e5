"""Hashing passwords: slow on purpose, so in threads and few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import TypeVar
from weakref import WeakKeyDictionary

from passlib.hash import argon2

from core.access.common_passwords import is_common
from core.errors import Unavailable, Unprocessable

MIN_LENGTH = 8
MAX_LENGTH = 1024

# From OWASP's password storage cheat sheet; of its choices one whose memory (19 MiB) a small machine has.
_ARGON2 = argon2.using(type="ID", memory_cost=19_456, rounds=2, parallelism=1)
_AT_ONCE = 2
_WAIT_S = 15

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

Result = TypeVar("Result")


def check_password(password: str, name: str = "") -> None:
    """Raise Unprocessable unless the password may be used, by the user of that name."""
    if len(password) < MIN_LENGTH:
        raise Unprocessable(f"A password has at least {MIN_LENGTH} characters.")
    if len(password) > MAX_LENGTH:
        raise Unprocessable(f"A password has at most {MAX_LENGTH} characters.")
    if is_common(password) or (name and password.lower() in (name.lower(), name.lower() * 2, name.lower()[::-1])):
        raise Unprocessable("This password is among the first that are guessed; take another.")


async def hash_password(password: str) -> str:
    """The argon2id hash of a password, with its parameters and salt. Raises Unprocessable."""
    check_password(password)
    return await _in_thread(lambda: _hash(password))


async def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is the one that was hashed. Without a hash: no, after the same time."""
    candidate = password[:MAX_LENGTH]
    matches = await _in_thread(lambda: _verify(password_hash, candidate))
    return matches and password_hash is not None and len(password) <= MAX_LENGTH


def _hash(password: str) -> str:
    return str(_ARGON2.hash(_bytes(password)))


def _verify(password_hash: str | None, password: str) -> bool:
    nobody = _dummy_hash()  # in any case, for the first call takes time
    try:
        return bool(_ARGON2.verify(_bytes(password), password_hash or nobody))
    except ValueError:  # a hash that is none: nobody can sign in with it
        return False


@cache
def _dummy_hash() -> str:
    return _hash("the password of nobody")


def _bytes(password: str) -> bytes:
    # JSON can carry half a surrogate pair, which is no reason to fail.
    return password.encode("utf-8", "surrogatepass")


async def _in_thread(work: Callable[[], Result]) -> Result:
    async with _slot():
        return await asyncio.to_thread(work)


@asynccontextmanager
async def _slot() -> AsyncIterator[None]:
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    try:
        async with asyncio.timeout(_WAIT_S):
            await slots.acquire()
    except TimeoutError as error:
        raise Unavailable("Too many people are signing in; try again in a moment.", retry_after_s=5) from error
    try:
        yield
    finally:
        slots.release()
