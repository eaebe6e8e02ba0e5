"""Budgets after a start, and over machines, with Redis and without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from core.access.budgets import parse_budgets
from core.access.limits import RateLimiter
from core.access.rates import parse_rates
from core.access.records import TokenRecord
from core.access.redis_limits import RedisLimits
from core.access.spending import budgeted, catch_up
from core.access.tenants import Tenant
from core.database.repositories.usage import Usage
from core.database.session import Database
from core.errors import LimitExceeded
from core.settings import RedisSettings
from tests.databases import with_database
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def record(token_id: int, owner: Tenant, *budgets: str) -> TokenRecord:
    return TokenRecord(token_id, "robot", owner, budgets=parse_budgets(budgets))


async def let_in(limiter: RateLimiter, one: TokenRecord, times: int) -> int:
    passed = 0
    for _ in range(times):
        try:
            await limiter.hit_anywhere(one)
        except LimitExceeded:
            continue
        passed += 1
    return passed


def test_what_was_used_before_a_start_stays_used(database_url: str) -> None:
    async def work(database: Database) -> None:
        owner = Tenant("red")
        owner.budgets = parse_budgets(["10 items/day"])
        mine, sister = record(1, owner, "5 requests/day"), record(2, owner)
        plain = record(3, Tenant("blue"))
        async with database.transaction() as session:
            now = int(time.time()) // 60 * 60
            await Usage(session).add([(now, ("red", 1, "cats"), (3, 0, 6, 0, 0, 0, 0))])
        limiter = RateLimiter()
        assert list(budgeted([mine, sister, plain])) == [mine, sister]
        for _ in range(2):  # learning it again changes nothing
            await catch_up(database, limiter, [mine, sister])
        assert await let_in(limiter, mine, 9) == 2
        limiter.use(mine, items=4, tokens=0, engine_ms=0)
        assert await let_in(limiter, sister, 1) == 0
        assert limiter.take_active() == [mine]
        assert limiter.take_active() == []

    with_database(database_url, work)


def test_two_machines_share_budgets_and_limits_of_tenants_in_redis(redis: RedisServer) -> None:
    def limiter() -> RateLimiter:
        settings = RedisSettings(url=redis.url, prefix="budgets", timeout_s=5)  # type: ignore[arg-type]
        return RateLimiter(redis=RedisLimits(settings))

    async def until(look: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while look() is None:
                await asyncio.sleep(0.01)

    async def work() -> None:
        owner = Tenant("red")
        owner.rates, owner.budgets = parse_rates(["100/day"]), parse_budgets(["50 items/day"])
        one, two = limiter(), limiter()
        first, second = record(1, owner, "30 requests/month"), record(2, owner)
        passed = await asyncio.gather(let_in(one, first, 25), let_in(two, first, 25))
        assert sum(passed) == 30
        passed = await asyncio.gather(let_in(one, second, 60), let_in(two, second, 60))
        assert sum(passed) == 70
        with pytest.raises(LimitExceeded, match="The tenant's rate of 100 per day"):
            await two.hit_anywhere(second)
        owner.rates, owner.version = (), 1
        assert await let_in(two, second, 1) == 1
        one.use(second, items=20, tokens=0, engine_ms=0)
        one.use(second, items=20, tokens=0, engine_ms=0)
        assert one._redis is not None
        await until(lambda: (one._redis and one._redis._sending and one._redis._sending.done()) or None)
        assert await let_in(two, second, 1) == 1
        one.raise_to(one.subject_of_tenant(second), [(one.subject_of_tenant(second).limits[-1], 50)])  # type: ignore[list-item]
        await until(lambda: (one._redis and one._redis._sending and one._redis._sending.done()) or None)
        with pytest.raises(LimitExceeded, match="50 items per day"):
            await two.hit_anywhere(second)
        for each in (one, two):
            assert each._redis is not None
            await each._redis.close()

    asyncio.run(work())
