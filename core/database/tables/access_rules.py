"""Which addresses may use which API."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import ID_ONCE, Base, utc_now


class AccessRule(Base):
    """One network that is allowed or denied."""

    __tablename__ = "access_rules"
    __table_args__ = (UniqueConstraint("cidr", "action", "scope"), ID_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    cidr: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(8))
    """`allow` or `deny`."""
    scope: Mapped[str] = mapped_column(String(16))
    """`internal` or `external`."""
    note: Mapped[str] = mapped_column(String(200), default="")
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
