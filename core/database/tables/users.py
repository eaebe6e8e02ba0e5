"""People who administer the platform, and their sign-in sessions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.database.tables.base import ID_ONCE, Base, utc_now


class User(Base):
    """Someone who may sign in. Roles: `admin` (all), `operator` (models, deployments), `viewer` (read)."""

    __tablename__ = "users"
    __table_args__ = ID_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    """Somebody else has chosen the password: nothing but its change is allowed."""
    totp_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The secret of the authenticator app, sealed; see core.access.sealing."""
    totp_since: Mapped[datetime | None] = mapped_column()
    """Since when it is asked for; unset while the app has not yet been shown to work."""
    totp_last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    """The step of time of the last code let in; none of it or before is let in again."""
    oidc_subject: Mapped[str | None] = mapped_column(String(64), unique=True, index=True)
    """SHA-256 in hexadecimal of who an OpenID provider says that this is; see core.access.oidc.identity."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Session(Base):
    """One sign-in. Its row decides: a revoked or expired session ends the JWTs that name it at once."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    refresh_hash: Mapped[bytes] = mapped_column()
    """SHA-256 of the refresh token in force; each refresh replaces it."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_used_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime] = mapped_column()
    revoked_at: Mapped[datetime | None] = mapped_column()
    second_factor_due: Mapped[bool] = mapped_column(default=False)
    """The password was right, and the code is still to come: good for nothing else."""
    address: Mapped[str] = mapped_column(String(64), default="")
    user_agent: Mapped[str] = mapped_column(String(255), default="")

    user: Mapped[User] = relationship(lazy="raise")


class RecoveryCode(Base):
    """A code that stands in for the authenticator app once; its row goes with its use."""

    __tablename__ = "recovery_codes"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
