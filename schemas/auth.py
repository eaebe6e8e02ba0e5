"""Sign-in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment


class LoginRequest(Body):
    """Name and password."""

    username: str = Field(max_length=64, examples=["admin"])
    password: str = Field(max_length=1024, examples=["correct horse battery staple"])


class SecondFactorRequest(Body):
    """A code of the authenticator app, or one for recovery."""

    code: str = Field(min_length=1, max_length=64, examples=["123456"])


class EnrolRequest(Body):
    """The password once more, before a second factor is set up."""

    current_password: str = Field(max_length=1024)


class EnrolAnswer(Answer):
    """For the authenticator app: `otpauth_uri` as a QR code, or `secret` typed in. Shown this one time."""

    secret: str
    otpauth_uri: str


class RecoveryCodes(Answer):
    """Each works once in the place of the app's code. Shown this one time."""

    recovery_codes: list[str]


class SecondFactorAnswer(Answer):
    """Whether a code is asked for after the password, and since when."""

    since: Moment | None
    recovery_codes_left: int


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


NextStep = Literal["second_factor", "password"]


class LoginAnswer(Answer):
    """Send `token` as `X-Auth-Token`; when it expires, `refresh_token` gets the next pair, once.

    Where `next` is not null, the token is good for that step alone: `second_factor` asks for a code, `password`
    for another password.
    """

    token: str
    refresh_token: str | None
    expires_at: Moment
    user: SignedInUser
    next: NextStep | None = None


class SessionAnswer(Answer):
    """A sign-in session; its id lets nobody in."""

    id: str
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    address: str
    user_agent: str
    current: bool = False
