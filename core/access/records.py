"""What the inference side knows of an access token."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from limits import RateLimitItem

from core.access.addresses import Network, is_in, read_address, read_network
from core.access.budgets import BudgetItem, parse_budgets
from core.access.patterns import NamePattern, any_matches
from core.access.rates import parse_rates
from core.access.tenants import Tenant, anybody
from core.database.repositories import TokenRow
from core.errors import Unprocessable

_MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One token, ready to be asked. None in a field means that it does not restrict."""

    id: int
    name: str
    owner: Tenant = field(default_factory=anybody)
    models: tuple[str, ...] | None = None
    operations: frozenset[str] | None = None
    rates: tuple[RateLimitItem, ...] = ()
    burst: int | None = None
    max_concurrency: int | None = None
    budgets: tuple[BudgetItem, ...] = ()
    priority: int | None = None
    """Of requests that name none; None for the platform's own."""
    ip_allow: tuple[Network, ...] | None = None
    expires_at: float | None = None
    """Seconds since the epoch."""
    revoked: bool = False
    _known: dict[tuple[str, ...], bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Which models and addresses were found to be allowed, or not."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.owner.name

    def may_infer(self, name: str, address: str) -> bool:
        """Whether the token may call the model `name` from an address: all of the questions below, in one look."""
        if name in self.owner.hidden:
            return False
        key = ("infer", name, address)
        allowed = self._known.get(key)
        if allowed is None:
            allowed = self.allows_operation("infer") and self.allows_model(name) and self.allows_address(address)
            self._remember(key, allowed)
        return allowed

    def allows_model(self, name: str) -> bool:
        """Whether the token may see and call the model `name`."""
        if name in self.owner.hidden:
            return False
        if self.models is None:
            return True
        allowed = self._known.get(("model", name))
        return self._learn("model", name) if allowed is None else allowed

    def allows_address(self, text: str) -> bool:
        """Whether the token may be used from an address; an unknown one is in no network."""
        if self.ip_allow is None:
            return True
        allowed = self._known.get(("address", text))
        return self._learn("address", text) if allowed is None else allowed

    def _learn(self, kind: str, text: str) -> bool:
        if kind == "model":
            allowed = any_matches([_pattern(one) for one in self.models or ()], text)
        else:
            allowed = is_in(read_address(text), self.ip_allow or ())
        self._remember((kind, text), allowed)
        return allowed

    def _remember(self, key: tuple[str, ...], allowed: bool) -> None:
        if len(self._known) >= _MAX_REMEMBERED:  # names come from callers, who may invent them
            self._known.clear()
        self._known[key] = allowed

    def allows_operation(self, operation: str) -> bool:
        """Whether the token may do `operation`."""
        return self.operations is None or operation in self.operations


def record_of(row: TokenRow, default_rates: tuple[RateLimitItem, ...], owner: Tenant) -> TokenRecord:
    """The record of a stored token. One whose restrictions cannot be read is as good as revoked."""
    try:
        rates = default_rates if row.rate is None else parse_rates(row.rate)
        budgets = parse_budgets(row.budgets or ())
        networks = None if row.ip_allow is None else tuple(map(read_network, row.ip_allow))
    except (Unprocessable, ValueError):
        return TokenRecord(row.id, row.name, owner, revoked=True)
    return TokenRecord(
        id=row.id,
        name=row.name,
        owner=owner,
        models=None if row.models is None else tuple(row.models),
        operations=None if row.operations is None else frozenset(row.operations),
        rates=rates,
        burst=row.burst,
        max_concurrency=row.max_concurrency,
        budgets=budgets,
        priority=row.priority,
        ip_allow=networks,
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
        revoked=row.revoked_at is not None,
    )


@lru_cache(maxsize=4096)
def _pattern(text: str) -> NamePattern:
    return NamePattern(text)
