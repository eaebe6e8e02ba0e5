"""Models made from a version's upload: converted, never uploaded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import ID_ONCE, Base, utc_now


class DerivedArtifact(Base):
    """One converted form of a version, and how it was made. It has no number, and is no upload."""

    __tablename__ = "derived_artifacts"
    __table_args__ = (UniqueConstraint("version_id", "key"), ID_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(64))
    """SHA-256 of conversion, options and calibration: what is asked for again is found by it."""
    conversion: Mapped[str] = mapped_column(String(32))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    """Of its files, names included; its address in the store."""
    model: Mapped[str] = mapped_column(String(255))
    """Name of the main file in the artifact."""
    format: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    recipe: Mapped[dict[str, Any]] = mapped_column()
    """Conversion, options, calibration (ids of samples, their hash), and the notes with library versions."""
    made_by: Mapped[str] = mapped_column(String(64), default="")
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
