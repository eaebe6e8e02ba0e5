"""Sign-in, refresh, sign-out."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from slowapi import Limiter

from app.dependencies import House, Viewer, actor_of, client_address
from core.access.sessions import SignedIn
from core.control.actor import Actor
from core.errors import Unauthenticated
from schemas.auth import LoginAnswer, LoginRequest, PasswordRequest, RefreshRequest, SignedInUser


def auth_router(limiter: Limiter, login_rate: Callable[[], str]) -> APIRouter:
    """The routes below `auth`; sign-in and refresh are throttled by address, at the rate of that moment."""
    router = APIRouter(prefix="/auth", tags=["auth"])

    @router.post("/login", summary="Sign in")
    @limiter.limit(login_rate)
    async def login(request: Request, body: LoginRequest, house: House) -> LoginAnswer:
        """Answer a token for `X-Auth-Token`. A wrong password and an unknown user get the same 401."""
        address = client_address(request)
        try:
            signed_in = await house.sessions.login(
                body.username, body.password, address, request.headers.get("user-agent", "")
            )
        except Unauthenticated:
            await _note(house, Actor(body.username or "?", address, request.state.request_id), "auth.login_failed")
            raise
        await _note(house, Actor(signed_in.user.name, address, request.state.request_id), "auth.login")
        return _answer(signed_in)

    @router.post("/refresh", summary="Get the next token")
    @limiter.limit("60/minute")
    async def refresh(request: Request, body: RefreshRequest, house: House) -> LoginAnswer:
        """Trade a refresh token, once, for the next pair; one used twice ends its session."""
        return _answer(await house.sessions.refresh(body.refresh_token))

    @router.post("/logout", status_code=204, summary="Sign out")
    async def logout(request: Request, principal: Viewer, house: House) -> Response:
        """End the session on the server: its tokens are refused from now on."""
        await house.sessions.logout(principal)
        await _note(house, actor_of(request, principal), "auth.logout")
        return Response(status_code=204)

    @router.get("/me", summary="Who am I?")
    async def me(principal: Viewer) -> SignedInUser:
        """The signed-in user."""
        return SignedInUser(username=principal.name, role=principal.role)

    @router.post("/password", status_code=204, summary="Change my password")
    async def password(request: Request, body: PasswordRequest, principal: Viewer, house: House) -> Response:
        """Change one's own password; all other sessions of this user end."""
        await house.sessions.change_password(principal, body.current_password, body.new_password)
        await _note(house, actor_of(request, principal), "auth.password")
        return Response(status_code=204)

    return router


async def _note(house: House, actor: Actor, action: str) -> None:
    async with house.database.transaction() as session:
        await actor.note(session, action, actor.name)


def _answer(signed_in: SignedIn) -> LoginAnswer:
    return LoginAnswer(
        token=signed_in.token,
        refresh_token=signed_in.refresh_token,
        expires_at=signed_in.expires_at,
        user=SignedInUser(username=signed_in.user.name, role=signed_in.user.role),
    )
