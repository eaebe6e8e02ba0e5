"""Which target answers where a request names none."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, utc_now


class DefaultTarget(Base):
    """The target of one modality, by its name: what it is, a model or something else, makes no difference."""

    __tablename__ = "default_targets"

    modality: Mapped[str] = mapped_column(String(16), primary_key=True)
    target: Mapped[str] = mapped_column(String(63))
    updated_by: Mapped[str] = mapped_column(String(64), default="")
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)
