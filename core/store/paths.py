from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Final

from core.errors import InvalidPackage

_MAX_DEPTH: Final = 8
_MAX_PART_BYTES: Final = 200
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_FORBIDDEN: Final = frozenset('*?"<>|')


def check_member(name: str) -> PurePosixPath:
    """The relative path of a file inside a package. Raises InvalidPackage for what could lead elsewhere."""
    problem = _problem(name)
    if problem:
        raise InvalidPackage(
            f"The package names a file {shown(name)}, which {problem}; use plain relative paths such as "
            "'model.onnx' or 'data/weights.bin'."
        )
    return PurePosixPath(name)


def member_key(path: PurePosixPath) -> str:
    """Equal for names that some file system takes for the same file."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def shown(name: str) -> str:
    """A caller's file name as it may stand in a message: quoted, printable, short."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return f"'{printable[:80]}{'…' if len(printable) > 80 else ''}'"


def _problem(name: str) -> str | None:
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute"
    if any(not character.isprintable() or character in _FORBIDDEN for character in name):
        return "holds a character that file names here may not have"
    parts = name.split("/")
    if ".." in parts:
        return "leads out of the package"
    if "." in parts or "" in parts:
        return "holds an empty part"
    if len(parts) > _MAX_DEPTH or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        return "is too long or too deep"
    return None
