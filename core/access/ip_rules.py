"""Which addresses may use which API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.access.addresses import Address, Network, read_address, read_network
from core.access.others import TellOthers, nobody
from core.database.repositories.access_rules import REVISION, AccessRules
from core.database.repositories.revisions import Revisions
from core.database.session import Database
from core.errors import Forbidden

Scope = Literal["internal", "external"]
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one API."""

    id: int
    network: Network
    deny: bool
    scope: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an address passes, and the rule that says so; None where no rule names it."""

    allowed: bool
    rule_id: int | None = None


def judge(rules: Iterable[Rule], scope: str, address: Address | None) -> Verdict:
    """Deny before allow. Where any rule allows, only what is allowed passes; else whatever is not denied."""
    mine = [rule for rule in rules if rule.scope == scope]
    if not mine:
        return Verdict(True)
    if address is None:
        return Verdict(False)
    hit = next((rule for rule in mine if rule.deny and address in rule.network), None)
    if hit is not None:
        return Verdict(False, hit.id)
    hit = next((rule for rule in mine if not rule.deny and address in rule.network), None)
    if hit is not None:
        return Verdict(True, hit.id)
    return Verdict(all(rule.deny for rule in mine))


class IpRules:
    """All rules in memory, brought up to date by `refresh`. Belongs to one event loop."""

    def __init__(self, database: Database, tell_others: TellOthers = nobody) -> None:
        self._database = database
        self._tell_others = tell_others
        self._rules: tuple[Rule, ...] = ()
        self._scopes: frozenset[str] = frozenset()
        self._passed: dict[tuple[str, str], bool] = {}
        self._revision: int | None = None
        self._refreshing = asyncio.Lock()

    async def changed(self) -> None:
        """Take over what this process has changed, and let the other workers do so. Raises Unavailable."""
        try:
            await self.refresh()
        finally:
            await self._tell_others()

    async def refresh(self) -> None:
        """Take over what changed. Raises Unavailable."""
        async with self._refreshing, self._database.session() as session:
            # Read before the rows: what changes between the two is then fetched once more, never missed.
            newest = (await Revisions(session).read_all()).get(REVISION, 0)
            if newest != self._revision:
                self._rules = tuple(
                    Rule(row.id, read_network(row.cidr), row.action == "deny", row.scope)
                    for row in await AccessRules(session).all()
                )
                self._scopes = frozenset(rule.scope for rule in self._rules)
                self._passed = {}
                self._revision = newest

    def check(self, scope: Scope, address: str) -> None:
        """Raise Forbidden where the address may not use that API. Costs a look into a dictionary."""
        if scope not in self._scopes:
            return
        key = scope, address
        passed = self._passed.get(key)
        if passed is None:
            if len(self._passed) >= _REMEMBERED:
                self._passed.clear()
            passed = self._passed[key] = judge(self._rules, scope, read_address(address)).allowed
        if not passed:
            raise Forbidden("This address may not use this API.")
