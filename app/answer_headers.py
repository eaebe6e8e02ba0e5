"""The headers that every answer has, and those that let pages of other origins read it (CORS)."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, Final

from core.settings import Settings

Headers = list[tuple[bytes, bytes]]

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # A page that shows something sends a policy of its own; what is no page needs nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")
_CACHED: Final = "/static/"
_PREFLIGHT_AGE_S: Final = 600
_ASKED_HEADERS: Final = (
    b"authorization, content-type, content-encoding, inference-header-content-length, x-access-token, "
    b"x-request-id, x-sequence-id, traceparent"
)
_SHOWN_HEADERS: Final = (
    b"inference-header-content-length, retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, "
    b"x-request-id, traceparent"
)


class FixedHeaders:
    """What every answer of one server process carries beside its own headers."""

    def __init__(self, settings: Settings) -> None:
        pairs = list(_ALWAYS)
        if settings.tls.certificate is not None and settings.tls.hsts_s:
            pairs.append((b"strict-transport-security", b"max-age=%d" % settings.tls.hsts_s))
        self._pairs = tuple(pairs)
        self._all = (*pairs, _NO_STORE)
        self._lines = lines_of(self._all)

    def of(self, request_id: str) -> Headers:
        """For an answer that sets none of them itself."""
        return [*self._all, (b"x-request-id", request_id.encode())]

    def lines(self, request_id: str) -> bytes:
        """As `of`, as they are written. The id is one that `choose_request_id` chose."""
        return b"%bx-request-id: %b\r\n" % (self._lines, request_id.encode())

    def beside(self, own: Iterable[tuple[bytes, bytes]], path: str, request_id: str) -> Headers:
        """Those that an answer does not set itself; files that pages are made of may be kept."""
        taken = {name for name, _ in own}
        pairs = self._pairs if path.startswith(_CACHED) else self._all
        added = [pair for pair in pairs if pair[0] not in taken]
        added.append((b"x-request-id", request_id.encode()))
        return added


class Cors:
    """Which other origins' pages may call the inference API from a browser; none, unless set.

    Tokens ride in headers that such a page has to set, so no credentials of the browser's own are ever allowed.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = b"*" in self._origins
        self.on = bool(self._origins)

    def headers(self, scope: MutableMapping[str, Any]) -> Headers:
        """What an answer to this request adds."""
        if not self.on:
            return []
        vary: Headers = [] if self._any else [(b"vary", b"Origin")]
        origin = origin_of(scope)
        if origin is None or not (self._any or origin in self._origins):
            return vary
        allowed = b"*" if self._any else origin
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _SHOWN_HEADERS),
            *vary,
        ]

    def is_preflight(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a browser asks whether it may ask."""
        names = {name for name, _ in scope["headers"]}
        return (
            self.on
            and scope["method"] == "OPTIONS"
            and b"origin" in names
            and b"access-control-request-method" in names
        )

    def preflight(self, scope: MutableMapping[str, Any]) -> Headers:
        """The answer's headers; without an allowed origin the browser does not go on."""
        return [
            *self.headers(scope),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", _ASKED_HEADERS),
            (b"access-control-max-age", b"%d" % _PREFLIGHT_AGE_S),
        ]


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are written."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def origin_of(scope: MutableMapping[str, Any]) -> bytes | None:
    """The page that a browser asks for."""
    for name, value in scope["headers"]:
        if name == b"origin":
            return bytes(value)
    return None
