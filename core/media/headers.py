"""What bytes are, by their first few: no decoder is touched before this has named the format."""

from __future__ import annotations

from typing import Final

# (offset, magic, format) of what is decoded.
_IMAGES: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
)
_SOUNDS: Final = ((8, b"WAVE", "WAV"), (0, b"ID3", "MP3"), (0, b"OggS", "Ogg"), (0, b"fLaC", "FLAC"))
# What people send by mistake, to be named in the answer.
_OTHERS: Final = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (4, b"ftyp", "an MP4 video"),
    (8, b"WAVE", "a WAV recording"),
    (8, b"AVI ", "an AVI video"),
    (0, b"ID3", "an MP3 recording"),
    (0, b"OggS", "an Ogg recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"\x1aE\xdf\xa3", "a WebM video"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x00\x00\x01\x00", "a Windows icon"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x93NUMPY", "a NumPy array"),
)
_WORDS: Final = (
    (b"<!doctype html", "HTML text"),
    (b"<html", "HTML text"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML text"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
    (b"data:image", "a data URL: send the bytes themselves"),
)
_MIN_BYTES: Final = 16


def image_format(data: bytes) -> str | None:
    """`JPEG`, `PNG`, `WebP`, `GIF` or `BMP`, or None for everything else."""
    head = data[:_MIN_BYTES]
    if head[8:12] == b"WEBP" and not head.startswith(b"RIFF"):
        return None
    return _match(head, _IMAGES)


def audio_format(data: bytes) -> str | None:
    """`WAV`, `FLAC`, `Ogg` or `MP3`, or None for everything else.

    A bare MP3 begins with a frame: 11 set bits, then a version, layer III (ISO/IEC 11172-3, section 2.4.1.3).
    """
    head = data[:_MIN_BYTES]
    if head[8:12] == b"WAVE" and not head.startswith((b"RIFF", b"RIFX", b"RF64")):
        return None
    found = _match(head, _SOUNDS)
    if found is None and len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08:
        return "MP3"
    return found


def describe(data: bytes) -> str:
    """What the bytes seem to be, as a noun with its article where it has one."""
    if not data:
        return "an empty body"
    head = data[:512]
    named = image_format(head) or _match(head, _OTHERS)
    return named or _text(head) or "data of an unknown kind"


def canvas(data: bytes, format: str) -> tuple[int, int] | None:
    """Width and height from the header, for the formats whose Pillow plugin allocates while it opens.

    Sources: GIF89a specification section 18; RFC 9649 sections 2.5 to 2.7. None where it cannot be read.
    """
    if format == "GIF" and len(data) >= 10:
        return _little(data, 6, 2), _little(data, 8, 2)
    if format == "WebP" and len(data) >= 30:
        return _webp_canvas(data)
    return None


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    return None


def _little(data: bytes, offset: int, count: int) -> int:
    return int.from_bytes(data[offset : offset + count], "little")


def _match(head: bytes, table: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for offset, magic, name in table if head.startswith(magic, offset)), None)


def _text(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"
    trimmed = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for word, name in _WORDS:
        if trimmed.startswith(word):
            return name
    printable = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    try:
        # The cut at 512 bytes may fall inside a character.
        head[:-4].decode("utf-8") if len(head) == 512 else head.decode("utf-8")
    except UnicodeDecodeError as error:
        return "text" if printable and error.start >= 500 else None
    return "text" if printable else None
