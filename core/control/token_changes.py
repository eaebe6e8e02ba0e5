"""Changes of access tokens: make, change, rotate, revoke. The HTTP side and the command line share them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.access.addresses import read_network
from core.access.tokens import hash_secret, new_secret
from core.control.actor import Actor, before_of
from core.control.limit_fields import check_limits
from core.control.tenant_changes import need_tenant
from core.database.repositories.tokens import Tokens
from core.database.tables import DEFAULT_TENANT, AccessToken, utc_now
from core.errors import Conflict, NotFound, Unprocessable

PREFIX_CHARACTERS = 8
OPERATIONS = ("infer", "list", "stream", "pipelines")
FIELDS = (
    "name",
    "tenant",
    "models",
    "operations",
    "expires_at",
    "rate",
    "burst",
    "max_concurrency",
    "budgets",
    "ip_allow",
    "priority",
)
MAX_GRACE_S = 366 * 86_400


async def find_token(session: AsyncSession, token_id: int) -> AccessToken:
    """The token with that id. Raises NotFound."""
    token = await Tokens(session).get(token_id)
    if token is None:
        raise NotFound("There is no such token.")
    return token


async def create_token(session: AsyncSession, fields: Mapping[str, Any], actor: Actor) -> tuple[AccessToken, str]:
    """Add a token and answer it with its secret. Raises Unprocessable for a field that cannot be used."""
    secret = new_secret()
    checked = checked_fields(fields)
    await need_tenant(session, checked.setdefault("tenant", DEFAULT_TENANT))
    token = AccessToken(
        **checked,
        hash=hash_secret(secret),
        prefix=secret[:PREFIX_CHARACTERS],
        created_by=actor.name,
    )
    await Tokens(session).add(token)
    await actor.note(
        session, "token.create", token.name, {"id": token.id, **_told({**fields, "tenant": token.tenant})}
    )
    await session.refresh(token)
    return token, secret


async def change_token(
    session: AsyncSession, token_id: int, changes: Mapping[str, Any], actor: Actor
) -> AccessToken:
    """Change some fields. Raises NotFound, Conflict for a revoked token, Unprocessable."""
    token = await _live(session, token_id)
    checked = checked_fields(changes)
    if "tenant" in checked:
        await need_tenant(session, checked["tenant"])
    before = before_of(token, checked)
    for field, value in checked.items():
        setattr(token, field, value)
    await Tokens(session).save(token)
    await actor.note(session, "token.update", token.name, {"id": token.id, **_told(changes), "before": before})
    await session.refresh(token)
    return token


async def rotate_token(
    session: AsyncSession, token_id: int, actor: Actor, *, grace_s: int = 0
) -> tuple[AccessToken, str]:
    """Replace the secret; the one before goes on holding for `grace_s`, any older one ends now.

    Raises NotFound, Conflict for a revoked token, or Unprocessable.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        raise Unprocessable(f"grace_s: at least 0 and at most {MAX_GRACE_S} seconds.")
    token = await _live(session, token_id)
    secret = new_secret()
    token.previous_hash = token.hash if grace_s else None
    token.previous_until = utc_now() + timedelta(seconds=grace_s) if grace_s else None
    token.hash, token.prefix = hash_secret(secret), secret[:PREFIX_CHARACTERS]
    await Tokens(session).save(token)
    await actor.note(session, "token.rotate", token.name, {"id": token.id, "grace_s": grace_s})
    await session.refresh(token)
    return token, secret


async def revoke_token(session: AsyncSession, token_id: int, actor: Actor) -> AccessToken:
    """Revoke for good; nothing happens to one that is revoked already. Raises NotFound."""
    token = await find_token(session, token_id)
    if token.revoked_at is None:
        await Tokens(session).revoke(token)
        await actor.note(session, "token.revoke", token.name, {"id": token.id})
        await session.refresh(token)
    return token


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as the row wants them. Raises Unprocessable, naming the field."""
    checked = {name: fields[name] for name in FIELDS if name in fields}
    if "name" in checked and not checked["name"]:
        raise Unprocessable("A token needs a name.")
    unknown = set(checked.get("operations") or ()) - set(OPERATIONS)
    if unknown:
        raise Unprocessable(f"operations: there is no {min(unknown)[:64]!r}; there are {', '.join(OPERATIONS)}.")
    check_limits(checked)
    if "tenant" in checked:
        checked["tenant"] = checked["tenant"] or DEFAULT_TENANT
    priority = checked.get("priority")
    if priority is not None and not 0 <= priority <= 9:
        raise Unprocessable("priority: a whole number from 0 to 9.")
    if checked.get("ip_allow") is not None:
        checked["ip_allow"] = [_network(text) for text in checked["ip_allow"]]
    if checked.get("expires_at") is not None:
        checked["expires_at"] = _future(checked["expires_at"])
    return checked


async def _live(session: AsyncSession, token_id: int) -> AccessToken:
    token = await find_token(session, token_id)
    if token.revoked_at is not None:
        raise Conflict("This token is revoked; make a new one.")
    return token


def _network(text: str) -> str:
    try:
        return str(read_network(text))
    except ValueError as error:
        raise Unprocessable(f"ip_allow: {text[:64]!r} is not a network such as 10.0.0.0/8.") from error


def _future(moment: datetime) -> datetime:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if aware <= utc_now():
        raise Unprocessable("expires_at lies in the past.")
    return aware


def _told(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
        if name in FIELDS and value is not None
    }
