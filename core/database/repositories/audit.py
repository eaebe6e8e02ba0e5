"""The audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from core.database.audit_chain import BEFORE_THE_FIRST, HEAD_ID, UNSEALED, link_of
from core.database.repositories.base import Repository
from core.database.tables import AuditEntry, AuditHead

_STEP = 500
_MOST_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a walk along the chain found; without `findings` it is whole."""

    count: int
    last_hash: str
    findings: list[str]


class Audit(Repository):
    """Adding to the log and reading it; nothing in it is ever changed."""

    async def add(
        self,
        actor: str,
        action: str,
        subject: str = "",
        *,
        detail: Mapping[str, Any] | None = None,
        address: str = "",
        request_id: str = "",
    ) -> AuditEntry:
        """Note that `actor` did `action` (as `model.create`) to `subject`; `detail` never holds a secret."""
        entry = AuditEntry(
            actor=actor[:64],
            action=action,
            subject=subject[:128],
            detail=json.loads(json.dumps(dict(detail or {}))),  # as it will be read, for the chain
            address=address[:64],
            request_id=request_id[:64],
        )
        self._session.add(entry)
        await self._session.flush()
        self._session.info.setdefault(UNSEALED, []).append(entry)
        return entry

    async def verify(self) -> ChainReport:
        """Walk the whole chain, a step of entries at a time."""
        found: list[str] = []
        last, position = BEFORE_THE_FIRST, 0
        async for entry in self.entries():
            position += 1
            if entry.position != position:
                found.append(f"Of entries {position} to {(entry.position or 0) - 1}, none is left.")
                position = entry.position or position
            elif entry.hash != link_of(last, position, entry):
                found.append(f"Entry {position} is not what was written, or the one before it is not.")
            last = entry.hash
            if len(found) >= _MOST_FINDINGS:
                break
        head = await self._session.get(AuditHead, HEAD_ID)
        if len(found) < _MOST_FINDINGS and (head is None or (head.position, head.hash) != (position, last)):
            found.append(f"The log ends at entry {position}, and should at {head.position if head else '?'}.")
        outside = select(func.count()).select_from(AuditEntry).where(AuditEntry.position.is_(None))
        if await self._session.scalar(outside):
            found.append("There are entries outside of the chain.")
        return ChainReport(position, last, found)

    async def entries(self) -> AsyncIterator[AuditEntry]:
        """All entries in the order of the chain, read in steps."""
        last = 0
        while True:
            query = select(AuditEntry).where(AuditEntry.position > last).order_by(AuditEntry.position)
            rows = (await self._session.scalars(query.limit(_STEP))).all()
            for row in rows:
                yield row
            if len(rows) < _STEP:
                return
            last = rows[-1].position or 0
            self._session.expunge_all()

    async def page(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[list[AuditEntry], str | None]:
        """Entries, newest first. `action` is a beginning, as `model.`; `since` is included, `until` is not."""
        query = select(AuditEntry)
        if actor is not None:
            query = query.where(AuditEntry.actor == actor)
        if action is not None:
            query = query.where(AuditEntry.action.startswith(action, autoescape=True))
        if subject is not None:
            query = query.where(AuditEntry.subject == subject)
        if since is not None:
            query = query.where(AuditEntry.at >= since)
        if until is not None:
            query = query.where(AuditEntry.at < until)
        return await self._page(query, AuditEntry.id, limit, cursor, descending=True)
