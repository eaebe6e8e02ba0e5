"""How serving went: a row for each model and minute of the last day, and hour of the last month."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from core.database.tables.base import Base


class HistoryRow(Base):
    """One model in one step of time; the model "" is the machine. Where nothing was asked there is no row."""

    __tablename__ = "history"

    step_s: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """60 or 3600."""
    at: Mapped[datetime] = mapped_column(primary_key=True)
    """The beginning of the step."""
    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of those, answered with a status from 500 on."""
    buckets: Mapped[list[int]] = mapped_column(default=list)
    """Answers by their time in all, over core.metrics.STAGE_BOUNDS_MS."""
    queue_depth: Mapped[int] = mapped_column(default=0)
    """The deepest that was seen."""
    cpu_percent: Mapped[float] = mapped_column(default=0.0)
    """Of all cores, the mean; the machine's row only."""
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """In use at the end: of the machine, or of the model's loaded versions."""
