"""What a process keeps in memory for a moment and writes to the database a little later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from app.state import Platform
from core.access.records import TokenRecord
from core.access.spending import catch_up
from core.access.tokens import TokenIndex
from core.access.usage import UsageBook
from core.database.repositories.usage import STEPS, Usage
from core.database.session import Database
from core.errors import PlatformError
from core.settings import UsageSettings

log = structlog.get_logger(__name__)

LAST_USED_EVERY_S: Final = 5.0
BUDGETS_EVERY_S: Final = 10.0
"""So soon, without Redis, a machine learns what others have used of a budget."""
LAST_WRITES_S: Final = 5.0
PRUNE_EVERY_S: Final = 600.0
PRUNE_AT_ONCE: Final = 120
"""Steps removed in one transaction: others that write need not wait long for it."""


async def keep_flushing(platform: Platform) -> None:
    """Write what there is, now and then, and remove what is too old. Endless."""
    used_at = spent_at = pruned_at = float("-inf")
    while True:
        await asyncio.sleep(platform.settings.usage.flush_s)
        await flush_usage(platform.usage, platform.database)
        now = time.monotonic()
        if now - used_at >= LAST_USED_EVERY_S:
            used_at = now
            await flush_last_used(platform.tokens)
        if now - spent_at >= BUDGETS_EVERY_S:
            spent_at = now
            await learn_budgets(platform, platform.limiter.take_active())
        if now - pruned_at >= PRUNE_EVERY_S:
            pruned_at = now
            await prune(platform.database, platform.settings.usage, time.time())


async def write_all(platform: Platform) -> None:
    """Write all there is, at the end, for which a database that does not answer has a few seconds."""
    try:
        async with asyncio.timeout(LAST_WRITES_S):
            await flush_usage(platform.usage, platform.database)
            await flush_last_used(platform.tokens)
    except TimeoutError:
        log.warning("usage.not_written", reason="The database did not answer before the end.")


async def flush_usage(usage: UsageBook, database: Database) -> None:
    """Write what was counted; what cannot be written now is kept for the next time."""
    try:
        await usage.write(database)
    except PlatformError as error:
        log.warning("usage.postponed", reason=error.message)


async def flush_last_used(tokens: TokenIndex) -> None:
    """Write when tokens were last used, likewise."""
    try:
        await tokens.flush_last_used()
    except PlatformError as error:
        log.warning("tokens.last_used_postponed", reason=error.message)


async def learn_budgets(platform: Platform, records: Iterable[TokenRecord]) -> None:
    """Learn what was used of the budgets of these tokens and of their tenants, by everybody."""
    try:
        await catch_up(platform.database, platform.limiter, records)
    except PlatformError as error:
        log.warning("budgets.postponed", reason=error.message)


async def prune(database: Database, settings: UsageSettings, now_s: float) -> None:
    """Remove counts that are older than they are kept."""
    kept_s: Mapping[str, int] = {
        "minute": settings.minute_hours * 3600,
        "hour": settings.hour_days * 86_400,
        "day": settings.day_days * 86_400,
    }
    try:
        for name, step_s in STEPS.items():
            await _forget(database, step_s, int(now_s) - kept_s[name])
    except PlatformError as error:
        log.warning("usage.prune_postponed", reason=error.message)


async def _forget(database: Database, step_s: int, before: int) -> None:
    while True:
        async with database.session() as session:
            oldest = await Usage(session).oldest(step_s)
        if oldest is None or oldest >= before:
            return
        async with database.transaction() as session:
            await Usage(session).forget(step_s, min(before, oldest + PRUNE_AT_ONCE * step_s))
