"""Where a redirect may lead: a source must not reach what only this machine can reach."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final

from core.errors import SourceUnavailable

_RESOLVE_S: Final = 10.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


async def check_redirect(host: str, port: int, hub_host: str) -> None:
    """Refuse a host inside the network, unless the hub is inside too; link-local addresses are always refused.

    Behind a proxy names are not resolved here; the proxy has the say. Raises SourceUnavailable.
    """
    targets = await _addresses(host, port)
    if any(address.is_link_local or address.is_unspecified or address.is_multicast for address in targets):
        raise SourceUnavailable("The source redirects to an address that models are not fetched from.")
    if all(address.is_global for address in targets):
        return
    if all(address.is_global for address in await _addresses(hub_host, port)):
        raise SourceUnavailable("The source redirects into a private network, which is refused.")


async def _addresses(host: str, port: int) -> list[Address]:
    try:
        return [_plain(ipaddress.ip_address(host))]
    except ValueError:
        pass
    from urllib.request import getproxies  # with all of urllib, for those who fetch something only

    if getproxies():
        return []
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise SourceUnavailable("The source's address cannot be found.") from error
    return [_plain(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found]


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
