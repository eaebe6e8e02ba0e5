"""Addresses and networks of callers: read, made plain, and found behind proxies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_MAX_HOPS = 32
_MAPPED_BITS = 96


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address | None:
    """The address, one of IPv4 in IPv6's form (`::ffff:10.0.0.1`) as IPv4; None where it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def read_network(text: str) -> Network:
    """The network, one of IPv4 in IPv6's form as IPv4. Raises ValueError."""
    network = ip_network(text.strip(), strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def is_in(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address; an unknown one is in none."""
    return address is not None and any(address in network for network in networks)


def caller_behind(peer: str, hops: Sequence[str], trusted: Sequence[Network]) -> str:
    """Who called, by what proxies say: the nearest of `hops` (nearest last) that is no trusted proxy.

    What stands before that one may be anybody's invention and is not read. A hop that is no address ends the
    search at the proxy that passed it on.
    """
    found = peer
    for hop in list(reversed(hops))[:_MAX_HOPS]:
        if not is_in(read_address(found), trusted):
            break
        address = read_address(hop)
        if address is None:
            break
        found = str(address)
    return found


def hops_of(header: str, values: Sequence[str]) -> list[str]:
    """The addresses in `X-Forwarded-For`, or the `for` of each element of `Forwarded` (RFC 7239), nearest last."""
    elements = [element.strip() for value in values for element in value.split(",")]
    if header == "forwarded":
        elements = [_for_of(element) for element in elements]
    return [_without_port(element) for element in elements]


def _for_of(element: str) -> str:
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _without_port(text: str) -> str:
    if text.startswith("["):  # IPv6 in brackets, with or without a port
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
