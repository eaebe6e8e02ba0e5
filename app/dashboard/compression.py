"""Pages and figures, compressed for whoever takes that.

An attacker who can make a browser ask for a page, put words into it and see how long the answer is could guess a
secret in it letter by letter (BREACH). Here browsers send the session's cookie for other sites only where the
whole window goes along (`SameSite`), and the length tells little: the header of gzip holds a file name of random
length, as Django's GZipMiddleware writes it (R. Palacios et al., "HTB: a very effective method to protect web
servers against BREACH attack to HTTPS", 2022).
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

LEAST_BYTES: Final = 1000
"""Shorter answers are sent as they are."""
AT_ONCE_BYTES: Final = 200_000
"""What is compressed on the event loop, in 2 ms; more goes to a thread."""
LEVEL: Final = 5
MOST_PADDING: Final = 100
_FNAME: Final = 8
_HEAD: Final = b"\x1f\x8b\x08" + bytes([_FNAME]) + bytes(4) + b"\x00\xff"  # RFC 1952, section 2.3


@dataclass(frozen=True, slots=True)
class Compressed:
    """A body as it is, and deflated; the same for all who ask."""

    plain: bytes
    deflated: bytes | None

    def response(
        self, request: Request, media_type: str, headers: Mapping[str, str], status: int = 200
    ) -> Response:
        """The answer in the form that this request takes."""
        sent = {**headers, "Vary": "Accept-Encoding"}
        if self.deflated is None or not takes_gzip(request):
            return Response(self.plain, status, sent, media_type)
        name = secrets.token_hex(MOST_PADDING // 2)[: secrets.randbelow(MOST_PADDING + 1)].encode()
        tail = struct.pack("<LL", zlib.crc32(self.plain), len(self.plain) & 0xFFFFFFFF)
        body = b"".join((_HEAD, name, b"\0", self.deflated, tail))
        return Response(body, status, {**sent, "Content-Encoding": "gzip"}, media_type)


async def compressed(body: bytes) -> Compressed:
    """A body for several to share."""
    return compress(body) if len(body) <= AT_ONCE_BYTES else await asyncio.to_thread(compress, body)


def compress(body: bytes) -> Compressed:
    """Deflate a body where that is worth it."""
    if len(body) < LEAST_BYTES:
        return Compressed(body, None)
    deflating = zlib.compressobj(LEVEL, wbits=-15)
    return Compressed(body, deflating.compress(body) + deflating.flush())


def takes_gzip(request: Request) -> bool:
    """Whether the client says that it can read gzip."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
