"""Tenants: who owns access tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import ID_ONCE, Base, utc_now

DEFAULT_TENANT = "default"
"""Owns the tokens that were given to nobody else; always there."""


class Tenant(Base):
    """A team, a product or a customer. Its name is what tokens, shares and usage know it by, and never changes."""

    __tablename__ = "tenants"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    note: Mapped[str] = mapped_column(String(200), default="")
    disabled: Mapped[bool] = mapped_column(default=False)
    rate: Mapped[list[str] | None] = mapped_column()
    burst: Mapped[int | None] = mapped_column()
    max_concurrency: Mapped[int | None] = mapped_column()
    budgets: Mapped[list[str] | None] = mapped_column()
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)
