"""What the inference side knows of an access token."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from limits import RateLimitItem

from core.access.patterns import NamePattern, any_matches
from core.access.rates import parse_rates
from core.database.repositories import TokenRow
from core.errors import Unprocessable

_MAX_REMEMBERED = 256

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One token, ready to be asked. None in a field means that it does not restrict."""

    id: int
    name: str
    tenant: str | None = None
    models: tuple[str, ...] | None = None
    operations: frozenset[str] | None = None
    rates: tuple[RateLimitItem, ...] = ()
    max_concurrency: int | None = None
    ip_allow: tuple[Network, ...] | None = None
    expires_at: float | None = None
    """Seconds since the epoch."""
    revoked: bool = False
    _allowed: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def allows_model(self, name: str) -> bool:
        """Whether the token may see and call the model `name`."""
        if self.models is None:
            return True
        allowed = self._allowed.get(name)
        if allowed is None:
            if len(self._allowed) >= _MAX_REMEMBERED:  # names come from callers, who may invent them
                self._allowed.clear()
            allowed = any_matches([_pattern(text) for text in self.models], name)
            self._allowed[name] = allowed
        return allowed

    def allows_operation(self, operation: str) -> bool:
        """Whether the token may do `operation`."""
        return self.operations is None or operation in self.operations


def record_of(row: TokenRow, default_rates: tuple[RateLimitItem, ...] = ()) -> TokenRecord:
    """The record of a stored token. One whose restrictions cannot be read is as good as revoked."""
    try:
        rates = default_rates if row.rate is None else parse_rates(row.rate)
        networks = None if row.ip_allow is None else tuple(map(_network, row.ip_allow))
    except (Unprocessable, ValueError):
        return TokenRecord(row.id, row.name, revoked=True)
    return TokenRecord(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        models=None if row.models is None else tuple(row.models),
        operations=None if row.operations is None else frozenset(row.operations),
        rates=rates,
        max_concurrency=row.max_concurrency,
        ip_allow=networks,
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
        revoked=row.revoked_at is not None,
    )


@lru_cache(maxsize=4096)
def _pattern(text: str) -> NamePattern:
    return NamePattern(text)


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    return ip_network(text, strict=False)
