from __future__ import annotations

import gzip
import time
import zlib

import pytest

from app.external.oip_encoding import choose_encoding, compress, decompress, read_encoding
from core.errors import BadRequest, MalformedBody, TooLarge, UnsupportedMedia


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_what_is_packed_is_unpacked(coding: bytes) -> None:
    body = bytes(range(256)) * 40
    packed = compress(body, coding)
    assert len(packed) < len(body)
    assert decompress(packed, coding, len(body)) == body
    assert {b"gzip": gzip.decompress, b"deflate": zlib.decompress}[coding](packed) == body


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_bomb_is_stopped_while_it_unpacks(coding: bytes) -> None:
    bomb = compress(bytes(1 << 30), coding)
    assert len(bomb) < 1 << 23
    started = time.process_time()
    with pytest.raises(TooLarge, match="more than the 1048576 bytes"):
        decompress(bomb, coding, 1 << 20)
    assert time.process_time() - started < 0.2


def test_the_cap_itself_is_allowed() -> None:
    assert len(decompress(gzip.compress(bytes(100)), b"gzip", 100)) == 100
    with pytest.raises(TooLarge):
        decompress(gzip.compress(bytes(101)), b"gzip", 100)


def test_damaged_bodies() -> None:
    packed = gzip.compress(b"tensor" * 100)
    with pytest.raises(MalformedBody, match="ends too early"):
        decompress(packed[:-1], b"gzip", 10_000)
    with pytest.raises(MalformedBody, match="not valid gzip"):
        decompress(packed[:-8] + bytes(8), b"gzip", 10_000)
    with pytest.raises(MalformedBody, match="not valid deflate"):
        decompress(packed, b"deflate", 10_000)
    with pytest.raises(BadRequest, match="after its end"):
        decompress(packed + packed, b"gzip", 10_000)


@pytest.mark.parametrize(
    ("value", "coding"),
    [(b"", b""), (b"identity", b""), (b"GZip", b"gzip"), (b" x-gzip ", b"gzip"), (b"deflate", b"deflate")],
)
def test_encodings_of_requests(value: bytes, coding: bytes) -> None:
    assert read_encoding(value) == coding


@pytest.mark.parametrize("value", [b"br", b"gzip, gzip", b"zstd"])
def test_encodings_that_are_not_known(value: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        read_encoding(value)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", b""),
        (b"gzip", b"gzip"),
        (b"Deflate", b"deflate"),
        (b"deflate, gzip", b"gzip"),
        (b"deflate;q=1.0, gzip; q=0.5", b"deflate"),
        (b"gzip;q=0", b""),
        (b"gzip;q=words", b""),
        (b"identity;q=1, gzip;q=0.2", b""),
        (b"*", b""),
        (b"br, zstd", b""),
    ],
)
def test_encodings_of_answers(accept: bytes, coding: bytes) -> None:
    assert choose_encoding(accept) == coding
