"""Access tokens of applications."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import ID_ONCE, Base, utc_now
from core.database.tables.tenants import DEFAULT_TENANT


class AccessToken(Base):
    """One application's key. A null restriction does not restrict; the secret itself is never kept."""

    __tablename__ = "access_tokens"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    prefix: Mapped[str] = mapped_column(String(16))
    """First characters of the secret, enough to tell tokens apart in a list."""
    hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    """SHA-256 of the whole secret."""
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Of the secret before this one, which holds until `previous_until`."""
    previous_until: Mapped[datetime | None] = mapped_column()
    tenant: Mapped[str] = mapped_column(String(64), default=DEFAULT_TENANT, index=True)
    models: Mapped[list[str] | None] = mapped_column()
    operations: Mapped[list[str] | None] = mapped_column()
    rate: Mapped[list[str] | None] = mapped_column()
    burst: Mapped[int | None] = mapped_column()
    max_concurrency: Mapped[int | None] = mapped_column()
    budgets: Mapped[list[str] | None] = mapped_column()
    priority: Mapped[int | None] = mapped_column()
    """Of requests that name none."""
    ip_allow: Mapped[list[str] | None] = mapped_column()
    expires_at: Mapped[datetime | None] = mapped_column()
    revoked_at: Mapped[datetime | None] = mapped_column()
    last_used_at: Mapped[datetime | None] = mapped_column()
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    revision: Mapped[int] = mapped_column(BigInteger, index=True)
    """Value of the `tokens` revision when this row last changed: readers fetch what is newer than they know."""
