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
    tenant: str | None = Field(None, max_length=64)
    models: list[str] | None = Field(None, max_length=100, description="Names, `*` for any characters.")
    operations: list[Operation] | None = None
    expires_at: datetime | None = None
    rate: str | list[str] | None = Field(None, examples=["100/second"])
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    ip_allow: list[str] | None = Field(None, max_length=100, description="Networks (CIDR).")


class TokenPatch(Body):
    """What is left out stays as it is; null lifts a restriction."""

    name: str | None = Field(None, min_length=1, max_length=128)
    tenant: str | None = Field(None, max_length=64)
    models: list[str] | None = Field(None, max_length=100)
    operations: list[Operation] | None = None
    expires_at: datetime | None = None
    rate: str | list[str] | None = None
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    ip_allow: list[str] | None = Field(None, max_length=100)


class TokenAnswer(Answer):
    """A token, without its secret."""

    id: int
    name: str
    prefix: str
    tenant: str | None
    models: list[str] | None
    operations: list[str] | None
    expires_at: Moment | None
    rate: list[str] | None
    max_concurrency: int | None
    ip_allow: list[str] | None
    created_by: str
    created_at: Moment
    last_used_at: Moment | None
    revoked_at: Moment | None


class TokenSecretAnswer(TokenAnswer):
    """A token with its secret, which is shown this one time."""

    secret: str
