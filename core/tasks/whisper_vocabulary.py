"""Whisper's tokens: text in GPT-2's byte-level form, and the special ones by their names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from core.errors import InvalidPackage

_MULTILINGUAL: Final = 51_865
"""Models of English alone have one token of text fewer (OpenAI's `tokenizer.py`), in the same special ones."""
_FIRST_TIME: Final = "<|0.00|>"
_NEEDED: Final = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|startofprev|>",
    "<|transcribe|>",
    "<|translate|>",
    _FIRST_TIME,
)


class WhisperVocabulary:
    """`vocabulary.txt` (one token a line) or `vocabulary.json` (a list) of a folder. Raises InvalidPackage."""

    def __init__(self, folder: Path) -> None:
        self._tokens = _read(folder)
        places = {token: place for place, token in enumerate(self._tokens)}
        for token in _NEEDED:
            if token not in places:
                raise InvalidPackage(f"The vocabulary has no token {token}: it is not that of a Whisper model.")
        self.end, self.start, self.previous, self.transcribe, self.translate, self.first_time = (
            places[token] for token in _NEEDED
        )
        self.multilingual = len(self._tokens) >= _MULTILINGUAL
        self.languages = {
            token[2:-2]: place for token, place in places.items() if self.start < place < self.translate
        }
        """Tokens by the codes of their languages, such as `en`."""

    def text(self, tokens: Iterable[int]) -> str:
        """What tokens of text spell; special ones and times are left out."""
        spelt = b"".join(_bytes(self._tokens[token]) for token in tokens if 0 <= token < self.end)
        return spelt.decode("utf-8", errors="replace")

    def language(self, token: int) -> str:
        """The code of a language's token. Raises KeyError."""
        return next(code for code, place in self.languages.items() if place == token)


def _read(folder: Path) -> list[str]:
    text, listed = folder / "vocabulary.txt", folder / "vocabulary.json"
    try:
        if text.is_file():
            return text.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        tokens = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidPackage("The package has no vocabulary.txt (or .json) that can be read.") from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise InvalidPackage("vocabulary.json must be a list of tokens.")
    return tokens


def _bytes(token: str) -> bytes:
    table = _byte_of()
    return b"".join(table.get(character) or character.encode() for character in token)


@cache
def _byte_of() -> dict[str, bytes]:
    """GPT-2's letters for bytes: those that print stand for themselves, the others follow 255 in their order."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): bytes([byte]) for byte in plain}
    return table | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}
