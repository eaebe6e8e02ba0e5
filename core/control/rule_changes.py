"""Changes of the rules about addresses. The HTTP side and the command line share them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from core.access.addresses import read_address, read_network
from core.access.ip_rules import Rule, Verdict, judge
from core.control.actor import Actor
from core.database.repositories.access_rules import AccessRules
from core.database.tables import AccessRule
from core.errors import Conflict, NotFound, Unprocessable

MOST = 1000
"""Each is looked at for every new address."""


async def add_rule(
    session: AsyncSession, cidr: str, action: str, scope: str, note: str, actor: Actor, *, asking: str, force: bool
) -> AccessRule:
    """Add a rule. Raises Unprocessable, or Conflict where it would lock out `asking` without `force`."""
    try:
        network = str(read_network(cidr))
    except ValueError as error:
        raise Unprocessable(f"cidr: {cidr[:64]!r} is not a network such as 10.0.0.0/8.") from error
    rules = AccessRules(session)
    await rules.lock()
    if await rules.count() >= MOST:
        raise Conflict(f"There are {MOST} rules already; remove some, or name larger networks.")
    row = AccessRule(cidr=network, action=action, scope=scope, note=note, created_by=actor.name)
    await rules.add(row)
    await _keep_in(rules, asking, force)
    await actor.note(session, "access_rule.create", network, {"id": row.id, "action": action, "scope": scope})
    await session.refresh(row)
    return row


async def remove_rule(
    session: AsyncSession, rule_id: int, actor: Actor, *, asking: str, force: bool
) -> AccessRule:
    """Remove a rule. Raises NotFound, or Conflict where that would lock out `asking` without `force`."""
    rules = AccessRules(session)
    await rules.lock()
    row = await rules.get(rule_id)
    if row is None:
        raise NotFound("There is no such rule.")
    await rules.delete(row)
    await _keep_in(rules, asking, force)
    told = {"id": row.id, "action": row.action, "scope": row.scope}
    await actor.note(session, "access_rule.delete", row.cidr, told)
    return row


async def would_pass(session: AsyncSession, address: str, scope: str) -> Verdict:
    """Whether an address may use an API, by the rules in the database. Raises Unprocessable."""
    found = read_address(address)
    if found is None:
        raise Unprocessable(f"address: {address[:64]!r} is not an address.")
    return judge(_read(await AccessRules(session).all()), scope, found)


async def _keep_in(rules: AccessRules, asking: str, force: bool) -> None:
    verdict = judge(_read(await rules.all()), "internal", read_address(asking))
    if not verdict.allowed and not force:
        raise Conflict(f"This would lock out the address that asks, {asking}; send force to do it nevertheless.")


def _read(rows: Sequence[AccessRule]) -> list[Rule]:
    return [Rule(row.id, read_network(row.cidr), row.action == "deny", row.scope) for row in rows]
