"""The keys that sign sign-in tokens; administrators only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request

from app.dependencies import Admin, House, UnitOfWork, actor_of
from core.access.key_ring import KeyFacts
from core.control.key_changes import list_keys, remove_key, rotate_keys
from schemas.base import ErrorBody, Page
from schemas.keys import KeyAnswer, KeyRotate

router = APIRouter(prefix="/keys", tags=["keys"])

KeyId = Annotated[str, Path(pattern=r"^(0|[0-9a-f]{16})$")]


@router.get("", summary="List the keys of sign-in tokens")
async def get_keys(_: Admin, house: House) -> Page[KeyAnswer]:
    """All keys, in the order in which they sign; never their secrets."""
    return Page(items=[key_answer(facts) for facts in await list_keys(house.settings)], next_cursor=None)


@router.post("/rotate", status_code=201, summary="Make a new key")
async def post_rotate(
    request: Request, body: KeyRotate, admin: Admin, house: House, session: UnitOfWork
) -> KeyAnswer:
    """Sign with a new key, in every worker; tokens of the one before hold until they end by themselves."""
    return key_answer(await rotate_keys(session, house.settings, actor_of(request, admin), body.activate_in_s))


@router.delete(
    "/{kid}",
    summary="Believe a key no more",
    responses={404: {"model": ErrorBody}, 409: {"model": ErrorBody}},
)
async def delete_key(request: Request, kid: KeyId, admin: Admin, house: House, session: UnitOfWork) -> KeyAnswer:
    """Refuse all tokens that it has signed, within a second; for a key that has leaked."""
    return key_answer(await remove_key(session, house.settings, actor_of(request, admin), kid))


def key_answer(facts: KeyFacts) -> KeyAnswer:
    """A key as the wire has it."""
    return KeyAnswer(
        kid=facts.kid,
        state=facts.state,
        active_from=datetime.fromtimestamp(facts.active_from_s, UTC),
        ends_at=None if facts.ends_s is None else datetime.fromtimestamp(facts.ends_s, UTC),
    )
