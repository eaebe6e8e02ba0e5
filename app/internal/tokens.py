"""Access tokens of applications; administrators only."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.dependencies import Admin, Cursor, House, Limit, Reading, actor_of
from core.control.token_changes import change_token, create_token, find_token, revoke_token, rotate_token
from core.database.repositories.tokens import Tokens
from core.database.tables import utc_now
from schemas.base import ErrorBody, Page
from schemas.tokens import ExpiringAnswer, TokenAnswer, TokenCreate, TokenPatch, TokenRotate, TokenSecretAnswer

router = APIRouter(prefix="/tokens", tags=["tokens"], responses={404: {"model": ErrorBody}})


@router.get("", summary="List tokens")
async def list_tokens(_: Admin, session: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[TokenAnswer]:
    """Tokens, newest first, revoked ones among them; never their secrets."""
    tokens, next_cursor = await Tokens(session).page(limit, cursor)
    return Page(items=[TokenAnswer.model_validate(token) for token in tokens], next_cursor=next_cursor)


@router.post("", status_code=201, summary="Make a token")
async def add_token(request: Request, body: TokenCreate, admin: Admin, house: House) -> TokenSecretAnswer:
    """Make a token; `secret` is shown this one time. What is left out does not restrict."""
    async with house.database.transaction() as session:
        token, secret = await create_token(session, body.model_dump(), actor_of(request, admin))
        answer = TokenSecretAnswer(**TokenAnswer.model_validate(token).model_dump(), secret=secret)
    await house.tokens.changed()
    return answer


@router.get("/expiring", summary="Tokens that end soon")
async def expiring_tokens(
    _: Admin,
    house: House,
    session: Reading,
    limit: Limit = 50,
    within_days: Annotated[int | None, Query(ge=1, le=3660, description="Left out: as the log reminds.")] = None,
) -> ExpiringAnswer:
    """Tokens that are not revoked and end within so many days, the next first."""
    days = within_days or house.settings.access.expiry_reminder_days
    tokens, count = await Tokens(session).expiring(utc_now() + timedelta(days=days), limit)
    return ExpiringAnswer(count=count, items=[TokenAnswer.model_validate(token) for token in tokens])


@router.get("/{token_id}", summary="One token")
async def get_token(token_id: int, _: Admin, session: Reading) -> TokenAnswer:
    """A token without its secret."""
    return TokenAnswer.model_validate(await find_token(session, token_id))


@router.patch("/{token_id}", summary="Change a token")
async def patch_token(
    request: Request, token_id: int, body: TokenPatch, admin: Admin, house: House
) -> TokenAnswer:
    """Change what is sent, at once; null lifts a restriction."""
    async with house.database.transaction() as session:
        changes = body.model_dump(exclude_unset=True)
        answer = TokenAnswer.model_validate(
            await change_token(session, token_id, changes, actor_of(request, admin))
        )
    await house.tokens.changed()
    return answer


@router.delete("/{token_id}", summary="Revoke a token")
async def delete_token(request: Request, token_id: int, admin: Admin, house: House) -> TokenAnswer:
    """Revoke a token, at once and for good; it stays in the list as revoked."""
    async with house.database.transaction() as session:
        answer = TokenAnswer.model_validate(await revoke_token(session, token_id, actor_of(request, admin)))
    await house.tokens.changed()
    return answer


@router.post("/{token_id}/rotate", summary="Give a token a new secret")
async def post_rotate(
    request: Request, token_id: int, admin: Admin, house: House, body: TokenRotate | None = None
) -> TokenSecretAnswer:
    """Replace the secret, shown this one time; the old one is refused at once, or after `grace_s` seconds."""
    grace_s = body.grace_s if body is not None else 0
    async with house.database.transaction() as session:
        token, secret = await rotate_token(session, token_id, actor_of(request, admin), grace_s=grace_s)
        answer = TokenSecretAnswer(**TokenAnswer.model_validate(token).model_dump(), secret=secret)
    await house.tokens.changed()
    return answer
