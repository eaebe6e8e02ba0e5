"""Models, their tags and their versions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.database.tables.base import ID_ONCE, Base, utc_now


class Model(Base):
    """A name that applications call."""

    __tablename__ = "models"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    task: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(Text, default="")
    next_version: Mapped[int] = mapped_column(default=1)
    """Number that the next upload gets; numbers are never used twice."""
    tenants: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Who may see and call it; null is everybody."""
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class ModelTag(Base):
    """A word that a model is found by."""

    __tablename__ = "model_tags"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(32), primary_key=True, index=True)


class Version(Base):
    """One upload of a model. Status: uploaded, validating, valid, invalid, archived."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model_id", "version"), ID_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    version: Mapped[int] = mapped_column()
    format: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    """Of the bytes as uploaded; also the artifact's address in the store."""
    status: Mapped[str] = mapped_column(String(16))
    claimed_until: Mapped[datetime | None] = mapped_column()
    """Until when the validation under way belongs to who began it; later than that, another may begin anew."""
    manifest: Mapped[dict[str, Any]] = mapped_column(default=dict)
    signature: Mapped[dict[str, Any] | None] = mapped_column()
    report: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    model: Mapped[Model] = relationship(lazy="raise")
