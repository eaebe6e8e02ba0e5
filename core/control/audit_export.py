"""The audit log as a file: JSON lines, which can be checked by anybody, or CSV for a spreadsheet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import orjson

from core.control.csv_lines import cell, csv_line
from core.database.repositories.audit import Audit
from core.database.tables import AuditEntry

Format = Literal["jsonl", "csv"]
COLUMNS: Final = ("position", "at", "actor", "action", "subject", "detail", "address", "request_id", "hash")


async def export(audit: Audit, kind: Format) -> AsyncIterator[bytes]:
    """The log in the order of its chain, a line at a time."""
    if kind == "csv":
        yield csv_line(COLUMNS)
    async for entry in audit.entries():
        row = _row(entry)
        if kind == "jsonl":
            yield orjson.dumps(row) + b"\n"
        else:
            row["detail"] = orjson.dumps(row["detail"]).decode()
            yield csv_line([cell(str(row[column])) for column in COLUMNS])


def _row(entry: AuditEntry) -> dict[str, Any]:
    row = {column: getattr(entry, column) for column in COLUMNS}
    return {**row, "at": entry.at.isoformat(timespec="microseconds")}
