"""What an examination finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(slots=True)
class Finding:
    """One thing that was looked at. A warning harms nobody; an error does, or will."""

    check: str
    level: Level
    message: str
    mend: Callable[[], Awaitable[None]] | None = None
    """What would mend it, where that can be done here and takes nothing away that somebody needs."""
    mended: bool = False

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "can_be_mended": self.mend is not None,
            "mended": self.mended,
        }


def fine(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", message)
