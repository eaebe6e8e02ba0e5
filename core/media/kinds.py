"""Which modality bytes are of, by what they are and not by what they are called."""

from __future__ import annotations

import re
from typing import Final

from core.media.headers import audio_format, image_format

# Besides tab, line ends and form feed, no control character stands in a text that somebody wrote.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_HEAD_BYTES: Final = 64


def modality_of(data: bytes) -> str | None:
    """`image` or `audio` for what the decoders of these take, `text` for UTF-8 without control characters.

    None for everything else, and for nothing at all. A text may begin with the letters of a magic number (`BMW`,
    `ID3 tags`): no file that does goes on without control characters.
    """
    if not data:
        return None
    found = "image" if image_format(data) else "audio" if audio_format(data) else None
    if found is not None and not (is_plain(data[:_HEAD_BYTES]) and is_text(data)):
        return found
    return "text" if is_plain(data) and is_text(data) else None


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8 throughout."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_plain(data: bytes) -> bool:
    """Whether it holds no control character that a text has none of."""
    return _CONTROL.search(data) is None
