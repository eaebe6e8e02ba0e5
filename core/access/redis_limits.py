"""The counts of windows and buckets in Redis, for several machines: one round trip for all limits of a subject."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from core.access.budgets import bounds
from core.access.counters import tightest
from core.access.windows import Bucket, Budget, Kept, Limit, LimitState, Stored, Subject
from core.errors import LimitsUnavailable
from core.settings import InvalidSettings, RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

AWAY_S: Final = 1.0
"""After a failure Redis is left alone for so long, that not each request waits for it."""
TELL_EVERY_S: Final = 10.0
_CONNECTIONS: Final = 64
# The arithmetic is that of core.access.windows, by Redis' clock: machines need not agree on the time.
# Five numbers for each limit: amount, length, burst, what one more counts, when it ends. A burst of -1 is a
# budget, whose length is the number of its day or month, by the asking machine's clock.
_SCRIPT: Final = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local passes, kept, answer, set_back = 1, {}, {}, {}
for i = 1, #KEYS do
  local amount, length, burst = tonumber(ARGV[5 * i - 4]), tonumber(ARGV[5 * i - 3]), tonumber(ARGV[5 * i - 2])
  local was = redis.call('GET', KEYS[i])
  if burst == 0 then
    local index = math.floor(now / length)
    local number, before, hits = index, 0, 0
    if was then
      local n, b, h = string.match(was, '^(%d+):(%d+):(%d+)$')
      n = tonumber(n)
      if n == index or n == index + 1 then
        number, before, hits = n, tonumber(b), tonumber(h)
      elseif n == index - 1 then
        before = tonumber(h)
      end
    end
    local left = math.min((number + 1) * length - now, length)
    if math.floor(before * left / length) + hits >= amount then passes = 0 end
    kept[i] = {number, before, hits}
  elseif burst == -1 then
    local period, used = length, 0
    if was then
      local n, u = string.match(was, '^(%d+):(%d+)$')
      if tonumber(n) >= period then period, used = tonumber(n), tonumber(u) end
    end
    if used >= amount then passes = 0 end
    kept[i] = {period, used}
  else
    local full = math.min(math.max(tonumber(was or 0), now), now + burst * length / amount)
    if full - now - (burst - 1) * length / amount > 0.000001 then passes = 0 end
    set_back[i] = was and full < tonumber(was) - 0.000001
    kept[i] = {full}
  end
end
for i = 1, #KEYS do
  local amount, length, burst = tonumber(ARGV[5 * i - 4]), tonumber(ARGV[5 * i - 3]), tonumber(ARGV[5 * i - 2])
  local one, ends = tonumber(ARGV[5 * i - 1]), tonumber(ARGV[5 * i])
  local is = kept[i]
  local text, life
  if burst == 0 then
    is[3] = is[3] + passes * one
    text = string.format('%d:%d:%d', is[1], is[2], is[3])
    life = 2 * length
  elseif burst == -1 then
    text = string.format('%d:%.0f', is[1], is[2] + passes * one)
    life = math.max(ends - now, 1)
  else
    is[1] = is[1] + passes * one * length / amount
    text = string.format('%.6f', is[1])
    life = burst * length / amount
  end
  if one == 1 and (passes == 1 or set_back[i]) then
    redis.call('SET', KEYS[i], text, 'EX', math.ceil(life) + 1)
  end
  answer[i] = text
end
return {passes, string.format('%.6f', now), unpack(answer)}
"""
# What was used of budgets: for each its period, how much more, how much at least, and when it ends.
_USE: Final = """
local t = redis.call('TIME')
for i = 1, #KEYS do
  local period, more = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local least, ends = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local was = redis.call('GET', KEYS[i])
  local used = 0
  if was then
    local n, u = string.match(was, '^(%d+):(%d+)$')
    if tonumber(n) > period then more, least, used = 0, 0, -1 end
    if tonumber(n) == period then used = tonumber(u) end
  end
  if used >= 0 then
    local text = string.format('%d:%.0f', period, math.max(used + more, least))
    redis.call('SET', KEYS[i], text, 'EX', math.ceil(math.max(ends - tonumber(t[1]), 1)) + 1)
  end
end
"""


class RedisLimits:
    """Counts in Redis. Belongs to one event loop."""

    def __init__(self, settings: RedisSettings) -> None:
        assert settings.url is not None
        self._redis = _client(settings.url.get_secret_value(), settings.timeout_s)
        self._script = self._redis.register_script(_SCRIPT)
        self._use_script = self._redis.register_script(_USE)
        self._unsent: dict[tuple[Subject, Budget], list[int]] = {}
        """What was used of budgets and is still to be told: how much more, and how much at least."""
        self._sending: asyncio.Task[None] | None = None
        self._prefix = settings.prefix
        self._timeout_s = settings.timeout_s
        self._away_until = self._told_at = float("-inf")

    async def hit(self, *subjects: Subject, count: bool = True) -> tuple[float, str, LimitState]:
        """See Counters.hit. Raises LimitsUnavailable where Redis does not answer in time."""
        now_s = time.time()
        limits = [(subject, limit) for subject in subjects for limit in subject.limits]
        keys = self._keys(subjects, limits)
        numbers = [number for _, limit in limits for number in _numbers(limit, now_s, count)]
        passes, now, *kept = await self._ask(self._script, keys, numbers)
        return _read([limit for _, limit in limits], bool(passes), float(now), kept)

    def use(self, subject: Subject, used: Iterable[tuple[Budget, int]]) -> None:
        """Count what was used of budgets, a moment later: nobody waits for it. While Redis is away it is dropped;
        `raise_to` makes up for that.
        """
        for budget, more in used:
            self._unsent.setdefault((subject, budget), [0, 0])[0] += more
        self._send_soon()

    def raise_to(self, subject: Subject, used: Iterable[tuple[Budget, int]]) -> None:
        """Let budgets be used up at least as far as that, a moment later."""
        for budget, least in used:
            unsent = self._unsent.setdefault((subject, budget), [0, 0])
            unsent[1] = max(unsent[1], least)
        self._send_soon()

    def _send_soon(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="budgets to Redis")

    async def _send(self) -> None:
        while self._unsent:
            (subject, _), _ = next(iter(self._unsent.items()))
            mine = [key for key in self._unsent if key[0] is subject]
            now_s = time.time()
            numbers: list[float] = []
            for key in mine:
                index, _, ends_s = bounds(key[1].period, now_s)
                numbers += [index, *self._unsent.pop(key), ends_s]
            try:
                await self._ask(self._use_script, self._keys((subject,), mine), numbers)
            except LimitsUnavailable:
                self._unsent.clear()

    def _keys(self, subjects: Sequence[Subject], limits: Iterable[tuple[Subject, Limit]]) -> list[str]:
        # In braces: all that one script touches is on one node of a cluster.
        place = f"{self._prefix}:{{{subjects[-1].place.hex()}}}"
        return [f"{place}:{limit.key.hex()}" for _, limit in limits]

    async def _ask(self, script: Any, keys: list[str], numbers: Sequence[float]) -> Any:
        from redis.exceptions import RedisError

        if time.monotonic() < self._away_until:
            raise LimitsUnavailable("The limits cannot be counted now.", retry_after_s=1)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await script(keys=keys, args=numbers)
        except (RedisError, OSError, TimeoutError) as error:
            self._note(error)
            raise LimitsUnavailable("The limits cannot be counted now.", retry_after_s=1) from error

    async def close(self) -> None:
        """Tell what is still to be told, and close the connections."""
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=self._timeout_s)
            self._sending.cancel()
        await self._redis.aclose()

    def _note(self, error: Exception) -> None:
        now = time.monotonic()
        self._away_until = now + AWAY_S
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            log.warning("redis.away", reason=type(error).__name__)


def _client(url: str, timeout_s: float) -> Redis:
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise InvalidSettings("redis.url needs the extra `redis`: pip install 'pulvinar[redis]'.") from error
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # a connection that Redis closed meanwhile
        )
    except ValueError as error:
        raise InvalidSettings("redis.url is not understood; write it as redis://host:6379/0.") from error
    return Redis.from_pool(pool)


def _numbers(limit: Limit, now_s: float, count: bool) -> tuple[float, ...]:
    if isinstance(limit, Budget):
        index, _, ends_s = bounds(limit.period, now_s)
        return limit.amount, index, -1, int(count and limit.metric == "requests"), ends_s
    return limit.amount, limit.length_s, limit.burst if isinstance(limit, Bucket) else 0, int(count), 0


def _read(limits: list[Limit], passes: bool, now_s: float, texts: list[Any]) -> tuple[float, str, LimitState]:
    wait_s, words = 0.0, ""
    states: list[tuple[Limit, Stored, int]] = []
    for limit, text in zip(limits, texts, strict=True):
        kept = _kept(limit, text.decode(), now_s)
        states.append((limit, kept, limit.left(kept, now_s)))
        limit_wait_s = 0.0 if passes else limit.wait_s(kept, now_s)
        if limit_wait_s > wait_s:
            wait_s, words = limit_wait_s, limit.words
    return wait_s if passes else max(wait_s, 0.001), words or limits[0].words, tightest(states, now_s)


def _kept(limit: Limit, text: str, now_s: float) -> Kept:
    if isinstance(limit, Bucket):
        return Kept(float(text), 0, 0, 0)
    if isinstance(limit, Budget):
        index, used = map(int, text.split(":"))
        return Kept(bounds(limit.period, now_s)[2], used, index, 0)
    number, before, hits = map(int, text.split(":"))
    return Kept((number + 2) * limit.length_s, number, before, hits)
