"""Searches for a version's best engine, precision and settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import ID_ONCE, Base, utc_now


class Optimisation(Base):
    """One search. Status: queued, running, done, failed, cancelled."""

    __tablename__ = "optimisations"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(16), default="queued")
    wanted: Mapped[dict[str, Any]] = mapped_column()
    """The objective, tolerance, budget, engines and precisions that were asked for."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    trials: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Each as `TrialResult.to_json`; a few dozen at most."""
    recommendation: Mapped[dict[str, Any] | None] = mapped_column()
    """Which trial to follow and why, what `engine: auto` needs to do so, and how the samples were split."""
    machine: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Where it was measured: another machine makes it stale."""
    follow: Mapped[bool] = mapped_column(default=True)
    """Whether `engine: auto` follows its recommendation; of several the newest."""
    fault: Mapped[str] = mapped_column(Text, default="")
    """Why it is not followed any more, for what it did in service; the end of a sentence, or empty."""
    reason: Mapped[str] = mapped_column(Text, default="")
    cancel: Mapped[bool] = mapped_column(default=False)
    """Somebody wants it to end."""
    claimed_until: Mapped[datetime | None] = mapped_column()
    """Until when it belongs to whoever runs it; later than that, it has died."""
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column()
    ended_at: Mapped[datetime | None] = mapped_column()
