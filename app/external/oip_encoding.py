"""Compressed bodies: `Content-Encoding` of requests, `Accept-Encoding` of answers; gzip and deflate (zlib)."""

from __future__ import annotations

import zlib
from typing import Final

from core.errors import BadRequest, MalformedBody, TooLarge, UnsupportedMedia

MIN_BYTES: Final = 1024
"""Answers smaller than this are not worth compressing."""
_LEVEL: Final = 1  # tensors compress badly: take what comes cheaply
_WINDOWS: Final = {b"gzip": 31, b"deflate": 15}


def read_encoding(value: bytes) -> bytes:
    """The coding that a `Content-Encoding` names; empty for none. Raises UnsupportedMedia."""
    coding = value.strip().lower().removeprefix(b"x-")
    if coding in (b"", b"identity"):
        return b""
    if coding not in _WINDOWS:
        raise UnsupportedMedia("The Content-Encoding of a request may be gzip, deflate or identity.")
    return coding


def decompress(body: bytes, coding: bytes, max_bytes: int) -> bytes:
    """The body, unpacked up to `max_bytes` and no further. Raises TooLarge, MalformedBody or BadRequest."""
    unpacker = zlib.decompressobj(_WINDOWS[coding])
    try:
        whole = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise MalformedBody(f"The body is not valid {coding.decode()}.") from error
    if len(whole) > max_bytes:
        raise TooLarge(f"The body unpacks to more than the {max_bytes} bytes that one request may have.")
    if not unpacker.eof:
        raise MalformedBody(f"The {coding.decode()} body ends too early.")
    if unpacker.unused_data:
        raise BadRequest(f"The {coding.decode()} body goes on after its end.")
    return whole


def compress(body: bytes, coding: bytes) -> bytes:
    """The body in this coding."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[coding])
    return packer.compress(body) + packer.flush()


def choose_encoding(accept: bytes) -> bytes:
    """The coding that an `Accept-Encoding` likes best, gzip before deflate; empty for none."""
    best, best_weight = b"", 0.0
    weights = dict(_weighted(part) for part in accept.lower().split(b","))
    for coding in _WINDOWS:
        weight = weights.get(coding, 0.0)
        if weight > best_weight:
            best, best_weight = coding, weight
    return best if best_weight >= weights.get(b"identity", 0.0) else b""


def _weighted(part: bytes) -> tuple[bytes, float]:
    coding, _, parameters = part.partition(b";")
    name, _, value = parameters.strip().partition(b"=")
    if name.strip() != b"q":
        return coding.strip(), 1.0
    try:
        return coding.strip(), float(value)
    except ValueError:
        return coding.strip(), 0.0
