"""The socket that HTTP is served on."""

from __future__ import annotations

import socket

from core.settings import Settings


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the configured address, not yet listening. Raises OSError where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.server.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.server.host, settings.server.port))
    except BaseException:
        bound.close()
        raise
    return bound
