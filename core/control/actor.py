"""Who makes a change, for the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.database.repositories.audit import Audit


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, the command line or the system, and where the request came from."""

    name: str
    address: str = ""
    request_id: str = ""

    async def note(
        self, session: AsyncSession, action: str, subject: str, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Write the change into the audit log, in the change's own transaction."""
        await Audit(session).add(
            self.name, action, subject, detail=detail or {}, address=self.address, request_id=self.request_id
        )


def before_of(row: object, fields: Iterable[str]) -> dict[str, Any]:
    """What these fields are before a change, as JSON has it. Never call it with a field that is secret."""
    values = {field: getattr(row, field) for field in fields}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


COMMAND_LINE = Actor("command line")
SYSTEM = Actor("system")
