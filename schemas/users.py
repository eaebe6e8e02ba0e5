"""Users of the internal side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment

RoleName = Literal["admin", "operator", "viewer"]


class UserCreate(Body):
    """A new user."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", examples=["ada"])
    password: str = Field(max_length=1024)
    role: RoleName = "viewer"
    must_change_password: bool = Field(False, description="Ask for another password at the first sign-in.")


class UserPatch(Body):
    """What is left out stays as it is."""

    role: RoleName | None = None
    disabled: bool | None = None
    password: str | None = Field(None, max_length=1024)
    must_change_password: bool | None = None


class UserAnswer(Answer):
    """A user, without its password's hash."""

    id: int
    name: str
    role: RoleName
    disabled: bool
    must_change_password: bool
    totp_since: Moment | None = Field(description="Since when a second factor is asked for; null for none.")
    created_at: Moment
    updated_at: Moment
