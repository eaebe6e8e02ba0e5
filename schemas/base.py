"""What all wire models share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

T = TypeVar("T")


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_iso, return_type=str)]
"""A time in UTC, written as RFC 3339 with milliseconds and `Z`."""


class Body(BaseModel):
    """A request body; unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Answer(BaseModel):
    """A response body, readable straight from a table's row."""

    model_config = ConfigDict(from_attributes=True)


class Page(Answer, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


class ErrorDetail(Answer):
    """What went wrong, in the native API's words."""

    code: str = Field(examples=["model_not_found"])
    message: str = Field(examples=["There is no model 'cats' in service."])
    request_id: str = Field(examples=["0a1b2c3d4e5f60718293a4b5"])


class ErrorBody(Answer):
    """The body of every error of the native API."""

    error: ErrorDetail
