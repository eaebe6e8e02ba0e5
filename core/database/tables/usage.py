"""What tenants, tokens and models used."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base


class UsageRow(Base):
    """The sums of one minute, hour or day, of one tenant's one token on one model.

    Names and numbers stand for themselves: what was used stays readable when a tenant or a model is gone.
    """

    __tablename__ = "usage"

    step_s: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """60, 3600 or 86400."""
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """When the step began, in seconds since the epoch, a multiple of `step_s`: days are those of UTC."""
    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    """Empty for requests that found none."""
    requests: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    items: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    engine_us: Mapped[int] = mapped_column(BigInteger)
    bytes_in: Mapped[int] = mapped_column(BigInteger)
    bytes_out: Mapped[int] = mapped_column(BigInteger)
