"""Who called, where the other end of the connection is a proxy that is trusted to say so."""

from __future__ import annotations

from core.access.addresses import caller_behind, hops_of, is_in, read_address, read_network
from core.settings import Settings

Client = tuple[str, int]


def comes_from_proxy(client: Client | None, settings: Settings) -> bool:
    """Whether the other end of a connection is a trusted proxy."""
    proxies = settings.server.trusted_proxies
    return bool(proxies and client) and is_in(
        read_address(client[0] if client else ""), map(read_network, proxies)
    )


def caller(client: Client | None, headers: list[tuple[bytes, bytes]], settings: Settings) -> Client | None:
    """The nearest address that is no trusted proxy, with port 0; the proxy's own where it names none."""
    if client is None:
        return None
    server = settings.server
    name = server.forwarded_header.encode()
    values = [value.decode("latin-1") for header, value in headers if header == name]
    if not values:
        return client
    trusted = [read_network(text) for text in server.trusted_proxies]
    return caller_behind(client[0], hops_of(server.forwarded_header, values), trusted), 0
