"""Limits that several machines count in one Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from core.access.budgets import parse_budgets
from core.access.limits import RateLimiter
from core.access.lockout import Attempts
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.access.redis_limits import AWAY_S, RedisLimits
from core.access.windows import subject_of
from core.errors import LimitExceeded, LimitsUnavailable, Unauthenticated
from core.metrics import Counts
from core.settings import AccessSettings, InvalidSettings, RedisSettings
from tests.databases import fresh_database
from tests.redis_server import RedisServer
from tests.servers import RunningServer, wait_until


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def limits(redis: RedisServer, prefix: str) -> RedisLimits:
    return RedisLimits(RedisSettings(url=redis.url, prefix=prefix, timeout_s=5))  # type: ignore[arg-type]


def test_two_counters_accept_together_what_the_rate_says(redis: RedisServer) -> None:
    async def work() -> list[tuple[bool, int]]:
        both = [limits(redis, "exact"), limits(redis, "exact")]
        subject = subject_of("robot", parse_rates(["300/day", "1000000/30 day"]))
        answers = await asyncio.gather(*(both[n % 2].hit(subject) for n in range(400)))
        for one in both:
            await one.close()
        return [(wait_s == 0, state.remaining) for wait_s, _, state in answers]

    answers = asyncio.run(work())
    assert sorted(remaining for let_in, remaining in answers if let_in) == list(range(300))


def test_a_refusal_says_why_and_counts_nothing_anywhere(redis: RedisServer) -> None:
    async def work() -> None:
        one = limits(redis, "refusal")
        narrow = subject_of("robot", parse_rates(["3/hour", "50/day"]))
        for _ in range(3):
            assert (await one.hit(narrow))[0] == 0
        for _ in range(5):
            wait_s, words, state = await one.hit(narrow)
            assert (0 < wait_s <= 7200, words, state.limit, state.remaining) == (True, "3 per hour", 3, 0)
        wide = subject_of("robot", parse_rates(["50/day"]))
        assert (await one.hit(wide))[2].remaining == 50 - 4
        burst = subject_of("burst", parse_rates(["1/day"]), burst=4)
        assert [(await one.hit(burst))[0] == 0 for _ in range(6)] == [True] * 4 + [False] * 2
        other = limits(redis, "other")
        assert (await other.hit(narrow))[0] == 0
        await one.close()
        await other.close()

    asyncio.run(work())


def test_all_limits_of_a_call_are_asked_in_one_round_trip(redis: RedisServer) -> None:
    budgets = parse_budgets(["9 items/day"])
    record = TokenRecord(1, "robot", rates=parse_rates(["5/day", "9/month"]), budgets=budgets)

    async def work() -> dict[str, int]:
        remote = limits(redis, "once")
        limiter = RateLimiter(redis=remote)
        await limiter.hit_anywhere(record)  # the script is loaded, and a connection made
        before = await remote._redis.info("commandstats")
        await limiter.hit_anywhere(record)
        after = await remote._redis.info("commandstats")
        await remote.close()
        calls = {name: one["calls"] - before.get(name, {"calls": 0})["calls"] for name, one in after.items()}
        return {name.removeprefix("cmdstat_"): count for name, count in calls.items() if count}

    asked = asyncio.run(work())
    within = {"time", "get", "set", "info"}  # what the script does there, and this test
    assert {name: count for name, count in asked.items() if name not in within} == {"evalsha": 1}


@pytest.mark.parametrize("fail_open", [True, False])
def test_redis_gone_and_back(fail_open: bool) -> None:
    counts = Counts()
    record = TokenRecord(1, "robot", rates=parse_rates(["3/day"]))

    async def hit(limiter: RateLimiter) -> bool | None:
        try:
            await limiter.hit_anywhere(record)
        except LimitExceeded:
            return False
        except LimitsUnavailable:
            return None
        return True

    async def work() -> None:
        with RedisServer() as redis:
            remote = limits(redis, "gone")
            limiter = RateLimiter(counts=counts, fail_open=fail_open, redis=remote)
            assert [await hit(limiter) for _ in range(4)] == [True, True, True, False]
            redis.kill()
            # This machine counts from nothing, or nobody is let in.
            expected = [True, True, True, False] if fail_open else [None] * 4
            assert [await hit(limiter) for _ in range(4)] == expected
            assert counts.limit_failures == 4
            redis.start()
            await asyncio.sleep(AWAY_S)  # it is left alone for so long
            assert [await hit(limiter) for _ in range(4)] == [True, True, True, False]
            assert counts.limit_failures == 4
            await remote.close()

    asyncio.run(work())


async def _wrong(attempts: Attempts, name: str) -> str:
    """One wrong password; what is said to it."""
    try:
        async with attempts.of(name):
            raise Unauthenticated("wrong")
    except (Unauthenticated, LimitExceeded, LimitsUnavailable) as error:
        return type(error).__name__


def test_wrong_passwords_are_counted_together(redis: RedisServer) -> None:
    async def work() -> None:
        remotes = [limits(redis, "wrong") for _ in range(2)]
        here, there = (
            Attempts(RateLimiter(redis=one), AccessSettings(user_failure_rate="4/day")) for one in remotes
        )
        said = [await _wrong((here, there)[number % 2], "eve") for number in range(6)]
        assert said == ["Unauthenticated"] * 4 + ["LimitExceeded"] * 2
        for _ in range(8):  # those that are right count nowhere
            async with there.of("ada"):
                pass
        assert await _wrong(here, "ada") == "Unauthenticated"
        for one in remotes:
            await one.close()

    asyncio.run(work())


@pytest.mark.parametrize("fail_open", [True, False])
def test_wrong_passwords_while_redis_is_away(fail_open: bool) -> None:
    async def work() -> None:
        with RedisServer() as redis:
            remote = limits(redis, "away")
            limiter = RateLimiter(redis=remote, fail_open=fail_open)
            attempts = Attempts(limiter, AccessSettings(user_failure_rate="2/day"))
            redis.kill()
            # This machine counts, or nobody signs in.
            expected = ["Unauthenticated"] * 2 + ["LimitExceeded"] if fail_open else ["LimitsUnavailable"] * 3
            assert [await _wrong(attempts, "eve") for _ in range(3)] == expected
            await remote.close()

    asyncio.run(work())


def test_a_url_that_is_none_is_told() -> None:
    with pytest.raises(InvalidSettings, match=r"redis\.url"):
        RedisLimits(RedisSettings(url="redis://x?socket_timeout=long"))  # type: ignore[arg-type]


def test_two_servers_accept_together_exactly_what_the_rate_says(redis: RedisServer, tmp_path: Path) -> None:
    with fresh_database("postgresql", tmp_path) as url:
        variables = {
            "PULVINAR_DATABASE__URL": url,
            "PULVINAR_REDIS__URL": redis.url,
            "PULVINAR_REDIS__TIMEOUT_S": "5",
            "PULVINAR_LOG__ACCESS": "false",
        }
        with (
            RunningServer(tmp_path / "a", variables) as one,
            RunningServer(tmp_path / "b", variables) as other,
            ThreadPoolExecutor(8) as threads,
        ):
            token = one.token(rate=["1000/day", "100000/30 day"])
            headers = {"X-Access-Token": token}

            def hammer(number: int) -> list[int]:
                server = (one, other)[number % 2]
                connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
                statuses: list[int] = []
                while len(statuses) < 150:
                    connection.request("GET", "/api/v1/models", headers=headers)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status != 401:  # the other server is told within its poll
                        statuses.append(answer.status)
                connection.close()
                return statuses

            statuses = Counter(status for some in threads.map(hammer, range(8)) for status in some)
            assert statuses == {200: 1000, 429: 200}
            # The express way asks Redis as well.
            answer = wait_until("An answer", lambda: other.infer("none", token, json={"inputs": {}}))
            assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (429, "0")
