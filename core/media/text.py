"""Texts as they come: UTF-8 within a size, one Unicode form, plain white space, and the way back to the original.

Control characters are taken out (Unicode's general category Cc, but for white space); they mean nothing to a
model, and hide what a text says from whoever reads it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from core.errors import InvalidInput, TooLarge, UnsupportedMedia
from core.media.headers import describe

Form = Literal["NFC", "NFKC", "none"]
Whitespace = Literal["collapse", "keep"]

MAX_TEXT_BYTES: Final = 1 << 20
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_JAMO: Final = range(0x1160, 0x1200)
_HALFWIDTH_MARKS: Final = "\uff9e\uff9f"


def read(data: bytes, media_type: str = "", *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """UTF-8 bytes as text, without a byte order mark.

    Raises TooLarge over `max_bytes`, UnsupportedMedia for another charset or for what is no text at all, and
    InvalidInput for bytes that UTF-8 does not have, surrogates among them.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"The text has {len(data)} bytes, and may have {max_bytes}.")
    charset = _charset(media_type)
    if charset not in _CHARSETS:
        raise UnsupportedMedia(f"Texts are taken as UTF-8, not {charset[:40]!r}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data[:512] or not data[:1].isascii():
            raise UnsupportedMedia(f"This model takes text as UTF-8; what came is {describe(data)}.") from error
        raise InvalidInput(
            f"The text is not valid UTF-8: byte {error.start} does not belong there (surrogates never do)."
        ) from error


def _charset(media_type: str) -> str:
    for part in media_type.split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return "utf-8"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text as the model gets it, and where its characters were in the text as it was sent.

    `starts` and `ends` have one place a character; None where nothing was moved.
    """

    text: str
    starts: list[int] | None = None
    ends: list[int] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original behind the characters from `start` to before `end`."""
        if self.starts is None or self.ends is None or end <= start:
            return start, end
        return self.starts[start], self.ends[end - 1]


def clean(text: str, form: Form = "NFC", whitespace: Whitespace = "collapse") -> Cleaned:
    """A text in one Unicode form, without control characters, with single spaces. Raises InvalidInput where blank.

    Raises InvalidInput for lone surrogates too, which no encoding of text has.
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("The text holds a lone surrogate, which is half of a character.")
    if _is_clean(text, form, whitespace):
        cleaned = Cleaned(text)
    else:
        pieces = _normalised(text, form)
        cleaned = _assembled(_collapsed(pieces) if whitespace == "collapse" else pieces)
    if not cleaned.text or cleaned.text.isspace():
        raise InvalidInput("The text is blank.")
    return cleaned


_Piece = tuple[str, int, int]
"""A character of the result, and the span it comes from."""


def _is_clean(text: str, form: Form, whitespace: Whitespace) -> bool:
    if form != "none" and not (text.isascii() or unicodedata.is_normalized(form, text)):
        return False
    if whitespace == "collapse" and text != " ".join(text.split()):
        return False
    return text.isprintable() or not any(_is_control(character) for character in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and not character.isspace()


def _normalised(text: str, form: Form) -> Iterator[_Piece]:
    for start, end in _clusters(text) if form != "none" else ((i, i + 1) for i in range(len(text))):
        part = text[start:end]
        for character in part if form == "none" else unicodedata.normalize(form, part):
            if not _is_control(character):
                yield character, start, end


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Spans that are normalised by themselves: nothing composes across their borders."""
    start = 0
    for place in range(1, len(text)):
        if not _joins(text[place]):
            yield start, place
            start = place
    if text:
        yield start, len(text)


def _joins(character: str) -> bool:
    """Whether it may compose with what stands before it: marks, and the later letters of a Hangul syllable."""
    if character.isascii():
        return False
    return (
        unicodedata.category(character)[0] == "M"
        or unicodedata.combining(character) > 0
        or ord(character) in _JAMO
        or character in _HALFWIDTH_MARKS
    )


def _collapsed(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    space: _Piece | None = None
    begun = False
    for character, start, end in pieces:
        if character.isspace():
            space = (" ", start if space is None else space[1], end)
            continue
        if space is not None and begun:
            yield space
        space, begun = None, True
        yield character, start, end


def _assembled(pieces: Iterator[_Piece]) -> Cleaned:
    found = list(pieces)
    return Cleaned("".join(p[0] for p in found), [p[1] for p in found], [p[2] for p in found])
