"""Sign-in."""

from __future__ import annotations

from pydantic import Field

from schemas.base import Answer, Body, Moment


class LoginRequest(Body):
    """Name and password."""

    username: str = Field(max_length=64, examples=["admin"])
    password: str = Field(max_length=1024, examples=["correct horse battery staple"])


class RefreshRequest(Body):
    """The refresh token of the last sign-in or refresh."""

    refresh_token: str = Field(max_length=512)


class PasswordRequest(Body):
    """A change of one's own password."""

    current_password: str = Field(max_length=1024)
    new_password: str = Field(max_length=1024)


class SignedInUser(Answer):
    """Who signed in."""

    username: str
    role: str


class LoginAnswer(Answer):
    """Send `token` as `X-Auth-Token`; when it expires, `refresh_token` gets the next pair, once."""

    token: str
    refresh_token: str
    expires_at: Moment
    user: SignedInUser
