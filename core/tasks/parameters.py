"""What a request may ask for in its `parameters`, checked; numbers may also come as text, as forms send them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from core.errors import InvalidInput

Default = TypeVar("Default", float, None, float | None)


def whole_number(parameters: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """A number of 1 to `most`. Raises InvalidInput."""
    asked = parameters.get(name)
    if asked is None:
        return default
    number = int(asked) if isinstance(asked, str) and asked.isascii() and asked.isdigit() else asked
    if type(number) is not int or not 1 <= number <= most:
        raise InvalidInput(f"The parameter {name} must be a whole number, 1 to {most}.")
    return number


def fraction(parameters: Mapping[str, Any], name: str, default: Default) -> float | Default:
    """A number of 0 to 1. Raises InvalidInput."""
    asked = parameters.get(name)
    if asked is None:
        return default
    number: Any = asked
    if isinstance(asked, str) and len(asked) < 50:
        try:
            number = float(asked)
        except ValueError:
            number = None
    if type(number) not in (int, float) or not math.isfinite(number) or not 0 <= number <= 1:
        raise InvalidInput(f"The parameter {name} must be a number from 0 to 1.")
    return float(number)


def one_of(parameters: Mapping[str, Any], name: str, default: str, choices: Sequence[str]) -> str:
    """One of the words. Raises InvalidInput."""
    asked = parameters.get(name)
    if asked is None:
        return default
    if not isinstance(asked, str) or asked not in choices:
        raise InvalidInput(f"The parameter {name} must be one of {', '.join(choices)}.")
    return asked
