"""Who did what to what, when, from where."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base, utc_now


class AuditEntry(Base):
    """One change. Rows are only ever added."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    actor: Mapped[str] = mapped_column(String(64))
    """User name, or `command line`, or `system`."""
    action: Mapped[str] = mapped_column(String(64), index=True)
    """As `model.create`, `token.revoke`, `auth.login`."""
    subject: Mapped[str] = mapped_column(String(128), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What changed; never a secret."""
    address: Mapped[str] = mapped_column(String(64), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    position: Mapped[int | None] = mapped_column(BigInteger, index=True, unique=True)
    """In the chain, from 1 on; given when the transaction ends."""
    hash: Mapped[str] = mapped_column(String(64), default="", server_default="")
    """Over this entry and the one before; see core.database.audit_chain."""


class AuditHead(Base):
    """The chain's end; one row."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))
