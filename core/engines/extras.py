"""`EngineOptions.extra`, read: a wrong word is answered with those that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.errors import LoadFailed

_ALIASES: Final = {"f32": "fp32", "f16": "fp16"}


def choice(extra: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    """The word at `key`, or the first of those allowed. `f32` is taken for `fp32`. Raises LoadFailed."""
    given = extra.get(key)
    if given is None:
        return allowed[0]
    word = _ALIASES.get(str(given).lower(), str(given).lower())
    if word not in allowed:
        raise LoadFailed(f"The engine's option {key} is {', '.join(allowed)}, not {str(given)[:40]!r}.")
    return word


def whole(extra: Mapping[str, Any], key: str, default: int, most: int) -> int:
    """The whole number at `key`, from 1 to `most`, or `default`. Raises LoadFailed."""
    given = extra.get(key)
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise LoadFailed(f"The engine's option {key} is a whole number from 1 to {most}, not {str(given)[:40]!r}.")
    return given


def refuse_unknown(extra: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises LoadFailed where `extra` holds a key that the engine does not have: most likely mistyped."""
    for key in extra:
        if key not in known:
            raise LoadFailed(f"The engine has no option {str(key)[:40]!r}; it has {', '.join(known)}.")
