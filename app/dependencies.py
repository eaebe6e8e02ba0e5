"""Who may call an internal endpoint, said by the type of its parameter.

`Viewer`, `Operator` and `Admin` are a signed-in user of at least that role; `UnitOfWork` is one transaction,
committed before the answer is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.security import APIKeyHeader
from sqlalchemy.ext.asyncio import AsyncSession

from app.state import Platform, platform_of
from core.access.roles import Role
from core.access.sessions import HALF, SIGNED_IN, Caller, Principal
from core.control.actor import Actor
from core.errors import Forbidden, Unauthenticated

_auth_token = APIKeyHeader(
    name="X-Auth-Token", auto_error=False, description="The `token` that `auth/login` answered with."
)


def client_address(request: Request) -> str:
    """The address at the other end of the connection."""
    return request.client.host if request.client else ""


# Dependencies are `async` though they wait for nothing: FastAPI runs any other in a thread, which costs more than
# all that they do.
async def _token(token: Annotated[str | None, Security(_auth_token)]) -> str:
    if not token:
        raise Unauthenticated("Sign in first, and send the token as X-Auth-Token.")
    return token


AuthToken = Annotated[str, Depends(_token)]


async def _principal(request: Request, token: AuthToken) -> Principal:
    return await platform_of(request).access.sessions.authenticate(token)


async def _half(request: Request, token: AuthToken) -> Principal:
    return await platform_of(request).access.sessions.authenticate(token, HALF)


async def _newcomer(request: Request, token: AuthToken) -> Principal:
    return await platform_of(request).access.sessions.authenticate(token, SIGNED_IN)


def _at_least(role: Role) -> Callable[..., Any]:
    async def check(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
        if not Role(principal.role).allows(role):
            raise Forbidden(f"This needs the role {role.value}; you are {principal.role}.")
        return principal

    return check


async def _house(request: Request) -> Platform:
    return platform_of(request)


async def _unit_of_work(request: Request) -> AsyncIterator[AsyncSession]:
    async with platform_of(request).database.transaction() as session:
        yield session


async def _reading(request: Request) -> AsyncIterator[AsyncSession]:
    async with platform_of(request).database.session() as session:
        yield session


def actor_of(request: Request, principal: Principal) -> Actor:
    """The signed-in user as the audit log names them."""
    return Actor(principal.name, client_address(request), request.state.request_id)


def caller_of(request: Request) -> Caller:
    """Where somebody signs in from."""
    return Caller(client_address(request), request.headers.get("user-agent", ""), request.state.request_id)


Half = Annotated[Principal, Depends(_half)]
"""Somebody whose password was right, and whose second factor is still to come."""
Newcomer = Annotated[Principal, Depends(_newcomer)]
"""Anybody signed in, though they may have to change their password before anything else."""


Viewer = Annotated[Principal, Depends(_at_least(Role.VIEWER))]
Operator = Annotated[Principal, Depends(_at_least(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(_at_least(Role.ADMIN))]
UnitOfWork = Annotated[AsyncSession, Depends(_unit_of_work, scope="function")]
Reading = Annotated[AsyncSession, Depends(_reading, scope="function")]
House = Annotated[Platform, Depends(_house)]
Limit = Annotated[int, Query(ge=1, le=500, description="Items on one page.")]
Cursor = Annotated[str | None, Query(max_length=256, description="`next_cursor` of the page before.")]
