"""Limits that several processes share: exact, whoever counts, and whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.access.limits import RateLimiter, Share, SharedLimits
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.access.slots import LOCK_PATIENCE_S
from core.access.windows import subject_of
from core.errors import LimitExceeded, LimitsUnavailable
from core.metrics import Counts

RATE = "3000/day"
_CHILD = """
import sys
from core.access.limits import RateLimiter, Share
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.errors import LimitExceeded
fd, slots, process, tries = map(int, sys.argv[1:5])
limiter = RateLimiter(share=Share(fd, slots, process))
record = TokenRecord(1, "robot", rates=parse_rates([sys.argv[5], "1000000/day"]), max_concurrency=4)
limiter.take_place(record)
print("ready", flush=True)
sys.stdin.readline()
accepted = 0
for _ in range(tries):
    try:
        # None is a request let in uncounted, where a machine under load has kept a lock for too long.
        accepted += limiter.hit(record) is not None
    except LimitExceeded:
        pass
print(accepted, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def limits() -> Iterator[SharedLimits]:
    shared = SharedLimits(1024)
    yield shared
    shared.close()


def _record(most: int = 4) -> TokenRecord:
    return TokenRecord(1, "robot", rates=parse_rates([RATE]), max_concurrency=most)


@contextmanager
def _children(limits: SharedLimits, count: int, tries: int) -> Iterator[list[subprocess.Popen[str]]]:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _CHILD, *map(str, (limits.fd, limits.slots, number, tries)), RATE],
            pass_fds=(limits.fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(1, count + 1)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _go_on(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def test_processes_together_accept_exactly_what_the_rate_says(limits: SharedLimits) -> None:
    with _children(limits, 3, 2500) as children:
        for child in children:
            _go_on(child)
        accepted = [int(child.stdout.readline()) for child in children if child.stdout]
    assert sum(accepted) == 3000
    assert all(accepted)


def test_places_of_a_process_that_died_are_given_back(limits: SharedLimits) -> None:
    here = RateLimiter(share=Share(limits.fd, limits.slots, 9))
    with _children(limits, 3, 0) as children:
        assert here.take_place(_record())
        with pytest.raises(LimitExceeded, match="at once"):
            here.take_place(_record())
        children[1].kill()
        children[1].wait()
        limits.clear(2)
        taken = here.take_place(_record())
        assert taken
        with pytest.raises(LimitExceeded, match="at once"):
            here.take_place(_record())
        here.give_back_place(taken)
        assert here.take_place(_record())


@pytest.mark.parametrize("is_shared", [False, True])
def test_strangers_without_end_leave_tokens_their_room(limits: SharedLimits, is_shared: bool) -> None:
    """Names that are made up are counted too, and nobody bounds how many there are."""
    counts = Counts()
    share = Share(limits.fd, limits.slots, 9) if is_shared else None
    here = RateLimiter(limits.slots, share=share, counts=counts)
    nearly_all = parse_rates(["2/day"])

    async def try_names() -> None:
        for number in range(2 * limits.slots):
            await here.hit_stranger(subject_of(f"user:{number}", nearly_all))

    asyncio.run(try_names())
    assert counts.limit_failures > limits.slots, "they filled what is theirs"
    before = counts.limit_failures
    records = [TokenRecord(number, "robot", rates=nearly_all) for number in range(100)]
    for record in records:
        assert here.hit(record) is not None
        assert here.hit(record) is not None
        with pytest.raises(LimitExceeded):
            here.hit(record)
    assert counts.limit_failures == before


_HOLDER = """
import sys
from core.access.slots import SharedMemory
memory = SharedMemory(4096, int(sys.argv[1]))
for number in range(64):
    memory.lock(number)
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_lock_held_by_a_process_that_is_stopped_keeps_nobody_waiting(limits: SharedLimits) -> None:
    here = RateLimiter(share=Share(limits.fd, limits.slots, 9), fail_open=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(limits.fd)],
        pass_fds=(limits.fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(LimitsUnavailable):
            here.hit(_record())
        assert LOCK_PATIENCE_S <= time.monotonic() - before < 5
    finally:
        holder.kill()
        holder.communicate()
    assert here.hit(_record()) is not None  # the kernel frees what the dead held
