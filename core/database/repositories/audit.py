"""The audit log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from core.database.repositories.base import Repository
from core.database.tables import AuditEntry


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
            detail=dict(detail or {}),
            address=address[:64],
            request_id=request_id[:64],
        )
        self._session.add(entry)
        await self._session.flush()
        return entry

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
