"""Imports of models from a hub or a package index."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import ID_ONCE, Base, utc_now


class Import(Base):
    """One import that a server was asked for. State: running, done, failed, cancelled."""

    __tablename__ = "imports"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(63))
    source: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default="running", index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    done_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """None as long as it is not known."""
    commit: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[int | None] = mapped_column()
    """The version that it became."""
    claimed_until: Mapped[datetime] = mapped_column()
    """Renewed by the process that does the work: what runs on past it has lost its process."""
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    ended_at: Mapped[datetime | None] = mapped_column()
