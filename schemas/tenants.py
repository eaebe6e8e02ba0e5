"""Tenants, and who may call what."""

from __future__ import annotations

from pydantic import Field

from schemas.base import Answer, Body, Moment


class TenantCreate(Body):
    """A new tenant. What is left out does not restrict."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="What tokens and usage know it by; it never changes."
    )
    note: str = Field("", max_length=200)
    disabled: bool = False
    rate: str | list[str] | None = Field(None, examples=["1000/minute"])
    burst: int | None = Field(None, ge=1, le=10**9, description="Requests let in at once, of the shortest rate.")
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    budgets: list[str] | None = Field(
        None, max_length=8, examples=[["100000 requests/day", "3600 engine_seconds/month"]]
    )


class TenantPatch(Body):
    """What is left out stays as it is; null lifts a limit."""

    note: str | None = Field(None, max_length=200)
    disabled: bool | None = Field(None, description="Whether all of its tokens are refused.")
    rate: str | list[str] | None = Field(None, examples=["1000/minute"])
    burst: int | None = Field(None, ge=1, le=10**9, description="Requests let in at once, of the shortest rate.")
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    budgets: list[str] | None = Field(
        None, max_length=8, examples=[["100000 requests/day", "3600 engine_seconds/month"]]
    )


class TenantAnswer(Answer):
    """A tenant."""

    id: int
    name: str
    note: str
    disabled: bool
    rate: list[str] | None
    burst: int | None
    max_concurrency: int | None
    budgets: list[str] | None
    created_by: str
    created_at: Moment
    updated_at: Moment


class SharingPut(Body):
    """Who may see and call a model or pipeline."""

    tenants: list[str] | None = Field(max_length=1000, description="By name; null is all, an empty list none.")


class SharingAnswer(Answer):
    """Who may see and call a model or pipeline; null is all tenants."""

    name: str
    tenants: list[str] | None
