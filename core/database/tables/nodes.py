"""The servers that share this database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base


class Node(Base):
    """One server: a process, or a control process with its workers. Times are by the database's clock."""

    __tablename__ = "nodes"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    instance: Mapped[str] = mapped_column(String(32))
    """Made at each start: two servers that took the same name are seen by it."""
    version: Mapped[str] = mapped_column(String(32))
    address: Mapped[str] = mapped_column(String(128))
    workers: Mapped[int] = mapped_column()
    started_at: Mapped[datetime] = mapped_column()
    seen_at: Mapped[datetime] = mapped_column(index=True)
    clock_ahead_ms: Mapped[int] = mapped_column()
    """How far its clock is ahead of the database's, at its last heart-beat."""
    key_print: Mapped[str] = mapped_column(String(16), server_default="")
    """A fingerprint of its keys, the same where the keys are; empty where it does not tell."""
