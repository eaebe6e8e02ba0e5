"""Counters that tell readers elsewhere that something changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base


class Revision(Base):
    """One counter a subject (`tokens`, `deployments`, `models`), raised in the transaction of each change."""

    __tablename__ = "revisions"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)
