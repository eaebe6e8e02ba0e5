"""Sign-in in its steps, refresh, sign-out, and one's own password."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response

from app.dependencies import Half, House, Newcomer, caller_of
from core.access.sessions import SignedIn, Stage
from schemas.auth import (
    LoginAnswer,
    LoginRequest,
    NextStep,
    PasswordRequest,
    RefreshRequest,
    SecondFactorRequest,
    SignedInUser,
)

router = APIRouter(prefix="/auth", tags=["auth"])


@router.post("/login", summary="Sign in")
async def login(request: Request, body: LoginRequest, house: House) -> LoginAnswer:
    """Answer a token for `X-Auth-Token`. A wrong password and an unknown user get the same 401.

    Where `next` is `second_factor`, send a code to `auth/second-factor` with that token; where it is `password`,
    send another password to `auth/password`. Until then the token is good for nothing else.
    """
    return login_answer(await house.access.sign_in.with_password(body.username, body.password, caller_of(request)))


@router.post("/second-factor", summary="Send the code of the second factor")
async def second_factor(request: Request, body: SecondFactorRequest, half: Half, house: House) -> LoginAnswer:
    """The second step of signing in, within 5 minutes: a code of the app, or a recovery code, each works once."""
    return login_answer(await house.access.sign_in.with_second_factor(half, body.code, caller_of(request)))


@router.post("/refresh", summary="Get the next token")
async def refresh(request: Request, body: RefreshRequest, house: House) -> LoginAnswer:
    """Trade a refresh token, once, for the next pair; one used twice ends its session."""
    return login_answer(await house.access.sign_in.refresh(body.refresh_token, caller_of(request)))


@router.post("/logout", status_code=204, summary="Sign out")
async def logout(request: Request, principal: Newcomer, house: House) -> Response:
    """End the session on the server: its tokens are refused from now on."""
    await house.access.own_account.sign_out(principal, caller_of(request))
    return Response(status_code=204)


@router.get("/me", summary="Who am I?")
async def me(principal: Newcomer) -> SignedInUser:
    """The signed-in user."""
    return SignedInUser(username=principal.name, role=principal.role)


@router.post("/password", status_code=204, summary="Change my password")
async def password(request: Request, body: PasswordRequest, principal: Newcomer, house: House) -> Response:
    """Change one's own password; all other sessions of this user end."""
    await house.access.own_account.change_password(
        principal, body.current_password, body.new_password, caller_of(request)
    )
    return Response(status_code=204)


def login_answer(signed_in: SignedIn) -> LoginAnswer:
    """A session as the wire has it."""
    user = signed_in.user
    return LoginAnswer(
        token=signed_in.token,
        refresh_token=signed_in.refresh_token,
        expires_at=signed_in.expires_at,
        user=SignedInUser(username=user.name, role=user.role),
        next=None if user.stage is Stage.OPEN else cast(NextStep, user.stage.value),
    )
