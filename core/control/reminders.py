"""Reminds of access tokens that end soon, before their applications notice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from core.database.repositories.tokens import Tokens
from core.database.session import Database
from core.database.tables import utc_now
from core.errors import PlatformError

log = structlog.get_logger(__name__)

EVERY_S: Final = 86_400.0
RETRY_S: Final = 60.0
NAMED: Final = 100


async def keep_reminding(database: Database, days: int) -> None:
    """Log what ends within so many days, at a start and once a day. Endless."""
    while True:
        try:
            await remind(database, days)
            pause_s = EVERY_S
        except PlatformError as error:
            log.warning("tokens.reminder_postponed", reason=error.message)
            pause_s = RETRY_S
        await asyncio.sleep(pause_s)


async def remind(database: Database, days: int) -> int:
    """Log a line for each token that ends within so many days, the next first; returns how many are named."""
    async with database.session() as session:
        tokens, _ = await Tokens(session).expiring(utc_now() + timedelta(days=days), NAMED)
    for token in tokens:
        log.warning(
            "token.expires_soon",
            token_id=token.id,
            name=token.name,
            tenant=token.tenant,
            expires_at=token.expires_at.isoformat() if token.expires_at else None,
        )
    return len(tokens)
