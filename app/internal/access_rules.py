"""Which addresses may use which API; administrators only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.dependencies import Admin, Cursor, House, Limit, Reading, actor_of, client_address
from core.control.rule_changes import add_rule, remove_rule, would_pass
from core.database.repositories.access_rules import AccessRules
from schemas.access_rules import CheckAnswer, RuleAnswer, RuleCreate, Scope
from schemas.base import ErrorBody, Page

router = APIRouter(prefix="/access-rules", tags=["access rules"])

RuleId = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("", summary="List the rules")
async def list_rules(_: Admin, session: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[RuleAnswer]:
    """Rules, in the order they were made; which comes first does not matter, deny goes before allow."""
    rules, next_cursor = await AccessRules(session).page(limit, cursor)
    return Page(items=[RuleAnswer.model_validate(rule) for rule in rules], next_cursor=next_cursor)


@router.get("/check", summary="Would this address pass?")
async def check(
    request: Request,
    _: Admin,
    session: Reading,
    scope: Scope,
    address: Annotated[str | None, Query(max_length=64, description="Left out: the one that asks.")] = None,
) -> CheckAnswer:
    """Ask what the rules make of an address."""
    asked = address or client_address(request)
    verdict = await would_pass(session, asked, scope)
    return CheckAnswer(address=asked, scope=scope, allowed=verdict.allowed, rule_id=verdict.rule_id)


@router.post("", status_code=201, summary="Add a rule", responses={409: {"model": ErrorBody}})
async def post_rule(request: Request, body: RuleCreate, admin: Admin, house: House) -> RuleAnswer:
    """Add a rule, in force at once; refused where it would lock out the address that asks, unless forced."""
    actor, asking = actor_of(request, admin), client_address(request)
    async with house.database.transaction() as session:
        rule = await add_rule(
            session, body.cidr, body.action, body.scope, body.note, actor, asking=asking, force=body.force
        )
        answer = RuleAnswer.model_validate(rule)
    await house.ip_rules.changed()
    return answer


@router.delete(
    "/{rule_id}", summary="Remove a rule", responses={404: {"model": ErrorBody}, 409: {"model": ErrorBody}}
)
async def delete_rule(
    request: Request, rule_id: RuleId, admin: Admin, house: House, force: bool = False
) -> RuleAnswer:
    """Remove a rule, at once; refused where that would lock out the address that asks, unless forced."""
    actor, asking = actor_of(request, admin), client_address(request)
    async with house.database.transaction() as session:
        answer = RuleAnswer.model_validate(await remove_rule(session, rule_id, actor, asking=asking, force=force))
    await house.ip_rules.changed()
    return answer
