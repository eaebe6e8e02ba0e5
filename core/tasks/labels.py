"""The names of a model's classes, from its manifest or from a file beside it."""

from __future__ import annotations

import json
from pathlib import Path

from core.errors import InvalidPackage

_MAX_BYTES = 8 << 20


def read_labels(labels: list[str] | str | None, root: Path) -> list[str] | None:
    """The list itself, or the lines of the file `labels` under `root` (`.json`: a list of strings).

    Raises InvalidPackage where the file is missing, outside `root`, or not text.
    """
    if not isinstance(labels, str):
        return labels
    text = _read(labels, root)
    if not labels.endswith(".json"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidPackage(f"The labels file {labels!r} must be a JSON list of strings.")
    return names


def _read(name: str, root: Path) -> str:
    if "\0" in name or not (path := (root / name).resolve()).is_relative_to(root.resolve()):
        raise InvalidPackage(f"The labels file {name!r} must lie in the model's package.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidPackage(f"The labels file {name!r} is larger than {_MAX_BYTES >> 20} MiB.")
        return path.read_text(encoding="utf-8-sig")
    except OSError:
        raise InvalidPackage(f"The labels file {name!r} is not in the model's package.") from None
    except UnicodeDecodeError:
        raise InvalidPackage(f"The labels file {name!r} is not UTF-8 text.") from None
