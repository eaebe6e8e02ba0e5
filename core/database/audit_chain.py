"""The chain of the audit log: each entry holds a hash over itself and the one before, so that none can be taken
out, put in or changed unseen. Who can write to the database can also write a whole new chain: keep the last hash
elsewhere now and then (`run.py audit verify` prints it).
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database.tables import AuditEntry, AuditHead

UNSEALED = "audit.unsealed"
HEAD_ID = 1
BEFORE_THE_FIRST = "0" * 64


def link(previous: str, position: int, at: datetime, texts: tuple[str, ...], detail: dict[str, Any]) -> str:
    """The SHA-256 of an entry in hexadecimal; `texts` are actor, action, subject, address, request id."""
    content = json.dumps(
        [previous, position, at.isoformat(timespec="microseconds"), *texts, detail], sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()


def link_of(previous: str, position: int, entry: AuditEntry) -> str:
    """The same of a row."""
    texts = (entry.actor, entry.action, entry.subject, entry.address, entry.request_id)
    return link(previous, position, entry.at, texts, entry.detail)


async def seal(session: AsyncSession) -> None:
    """Put the entries of this transaction at the chain's end; the last that a transaction does.

    The head's row stays locked until the commit, which follows at once: nobody who holds it waits for anybody.
    """
    entries: list[AuditEntry] = session.info.pop(UNSEALED, [])
    if not entries:
        return
    head = await session.scalar(select(AuditHead).where(AuditHead.id == HEAD_ID).with_for_update())
    assert head is not None, "the migration makes it"
    for entry in entries:
        head.position += 1
        head.hash = link_of(head.hash, head.position, entry)
        entry.position, entry.hash = head.position, head.hash
    await session.flush()
