"""What should be served (desired) and what is (observed)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.database.tables.base import Base, utc_now
from core.database.tables.models import Model


class Deployment(Base):
    """The desired state of one model. `generation` grows with every change."""

    __tablename__ = "deployments"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    generation: Mapped[int] = mapped_column(default=1)
    running: Mapped[bool] = mapped_column(default=True)
    """False once undeployed; the row stays, so that its generation goes on."""
    spec: Mapped[dict[str, Any]] = mapped_column()
    """The body of `PUT …/deployment` with all defaults filled in: traffic, engine, device, queue_size …"""
    updated_by: Mapped[str] = mapped_column(String(64), default="")
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)

    model: Mapped[Model] = relationship(lazy="raise")


class DeploymentHistory(Base):
    """Every desired state that a model has had, so that a rollback knows what came before."""

    __tablename__ = "deployment_history"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    running: Mapped[bool] = mapped_column()
    spec: Mapped[dict[str, Any]] = mapped_column()
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DeploymentStatus(Base):
    """The observed state of one model on one node. State: pending, loading, warming, serving, draining, idle,
    stopped, failed.
    """

    __tablename__ = "deployment_status"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    node: Mapped[str] = mapped_column(String(64), primary_key=True)
    generation: Mapped[int] = mapped_column(default=0)
    """The desired generation that this state answers to."""
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    versions: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)
