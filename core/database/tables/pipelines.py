"""Pipelines: their versions, and which of them should answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.database.tables.base import ID_ONCE, Base, utc_now


class Pipeline(Base):
    """A name that applications call, and that no model has."""

    __tablename__ = "pipelines"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    description: Mapped[str] = mapped_column(Text, default="")
    """That of its newest version."""
    next_version: Mapped[int] = mapped_column(default=1)
    tenants: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Who may see and call it; null is everybody."""
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class PipelineVersion(Base):
    """One definition, as it was uploaded; it was valid then, and never changes."""

    __tablename__ = "pipeline_versions"
    __table_args__ = (UniqueConstraint("pipeline_id", "version"), ID_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    pipeline_id: Mapped[int] = mapped_column(ForeignKey("pipelines.id", ondelete="CASCADE"))
    version: Mapped[int] = mapped_column()
    definition: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class PipelineDeployment(Base):
    """The desired state of one pipeline. `generation` grows with every change."""

    __tablename__ = "pipeline_deployments"

    pipeline_id: Mapped[int] = mapped_column(ForeignKey("pipelines.id", ondelete="CASCADE"), primary_key=True)
    generation: Mapped[int] = mapped_column(default=1)
    running: Mapped[bool] = mapped_column(default=True)
    version: Mapped[int] = mapped_column()
    spec: Mapped[dict[str, Any]] = mapped_column()
    """`timeout_ms` and `queue_size`."""
    updated_by: Mapped[str] = mapped_column(String(64), default="")
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)

    pipeline: Mapped[Pipeline] = relationship(lazy="raise")
