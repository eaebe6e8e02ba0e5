"""Access tokens of applications."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment

Operation = Literal["infer", "list", "stream", "pipelines"]


class TokenCreate(Body):
    """A new token. What is left out does not restrict."""

    name: str = Field(min_length=1, max_length=128, examples=["mobile app"])
    tenant: str | None = Field(None, max_length=64, description="Left out: `default`.")
    models: list[str] | None = Field(None, max_length=100, description="Names, `*` for any characters.")
    operations: list[Operation] | None = None
    expires_at: datetime | None = None
    rate: str | list[str] | None = Field(None, examples=["100/second"])
    burst: int | None = Field(None, ge=1, le=10**9, description="Requests let in at once, of the shortest rate.")
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    budgets: list[str] | None = Field(None, max_length=8, examples=[["10000 requests/day"]])
    ip_allow: list[str] | None = Field(None, max_length=100, description="Networks (CIDR).")
    priority: int | None = Field(None, ge=0, le=9, description="Of requests that name none; 0 goes first.")


class TokenPatch(Body):
    """What is left out stays as it is; null lifts a restriction."""

    name: str | None = Field(None, min_length=1, max_length=128)
    tenant: str | None = Field(None, max_length=64)
    models: list[str] | None = Field(None, max_length=100)
    operations: list[Operation] | None = None
    expires_at: datetime | None = None
    rate: str | list[str] | None = None
    burst: int | None = Field(None, ge=1, le=10**9)
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    budgets: list[str] | None = Field(None, max_length=8)
    ip_allow: list[str] | None = Field(None, max_length=100)
    priority: int | None = Field(None, ge=0, le=9)


class TokenRotate(Body):
    """How a secret is replaced."""

    grace_s: int = Field(0, ge=0, le=366 * 86_400, description="Seconds for which the old secret still holds.")


class TokenAnswer(Answer):
    """A token, without its secret."""

    id: int
    name: str
    prefix: str
    tenant: str
    models: list[str] | None
    operations: list[str] | None
    expires_at: Moment | None
    rate: list[str] | None
    burst: int | None
    max_concurrency: int | None
    budgets: list[str] | None
    ip_allow: list[str] | None
    priority: int | None
    created_by: str
    created_at: Moment
    last_used_at: Moment | None
    previous_until: Moment | None = Field(description="Until when the secret before this one holds.")
    revoked_at: Moment | None


class ExpiringAnswer(Answer):
    """Tokens that end soon, the next first."""

    count: int = Field(description="How many there are; `items` may be fewer.")
    items: list[TokenAnswer]


class TokenSecretAnswer(TokenAnswer):
    """A token with its secret, which is shown this one time."""

    secret: str
