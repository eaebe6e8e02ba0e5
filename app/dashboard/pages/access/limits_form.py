"""The limits of a token or a tenant, as a form has them."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from app.dashboard.pages.access.tabs import lines
from core.control.limit_fields import check_limits
from core.errors import Unprocessable


class LimitsForm(BaseModel):
    """What is empty does not restrict."""

    rate: list[str] | None = None
    burst: int | None = Field(None, ge=1, le=10**9)
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    budgets: list[str] | None = Field(None, max_length=8)

    @field_validator("rate", "budgets", mode="before")
    @classmethod
    def _several(cls, value: str | list[str] | None, info: ValidationInfo) -> list[str] | None:
        said = lines(value)
        try:
            check_limits({str(info.field_name): said})
        except Unprocessable as error:
            raise ValueError(error.message) from error
        return said
