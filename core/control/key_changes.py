"""Changes of the keys that sign sign-in tokens. The HTTP side and the command line share them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from core.access import key_ring
from core.access.key_ring import KeyFacts
from core.access.sessions import token_life_s
from core.control.actor import Actor
from core.settings import Settings


async def list_keys(settings: Settings) -> list[KeyFacts]:
    """All keys, in the order in which they sign."""
    keys = await asyncio.to_thread(key_ring.read_keys, settings.keys_dir)
    return key_ring.facts_of(keys, token_life_s(settings.access), datetime.now(UTC).timestamp())


async def rotate_keys(session: AsyncSession, settings: Settings, actor: Actor, activate_in_s: float) -> KeyFacts:
    """Make a new key, which signs in so many seconds; the one before is believed until its last token ends."""
    life_s = token_life_s(settings.access)
    made = await asyncio.to_thread(key_ring.rotate, settings.keys_dir, life_s, activate_in_s=activate_in_s)
    active_from = datetime.fromtimestamp(made.active_from_s, UTC).isoformat(timespec="seconds")
    await actor.note(session, "key.rotate", made.kid, {"active_from": active_from})
    return made


async def remove_key(session: AsyncSession, settings: Settings, actor: Actor, kid: str) -> KeyFacts:
    """Believe no token of a key any more. Raises NotFound, or Conflict for the one that signs."""
    removed = await asyncio.to_thread(key_ring.remove, settings.keys_dir, token_life_s(settings.access), kid)
    await actor.note(session, "key.remove", kid, {"before": {"state": removed.state}})
    return removed
