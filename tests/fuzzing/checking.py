"""What holds for every parser: it parses, or raises the platform's error of bad input, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import seed as seeded

from core.errors import PlatformError
from tests.fuzzing.parsers import Parser

MOST_CPU_S = 5.0


@dataclass
class Seen:
    """What was found out on the way."""

    examples: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)


def property_of(parser: Parser, seen: Seen, seed: int | None = None) -> Callable[[], None]:
    """A test of one parser; `seed` makes its inputs others, and repeatable."""

    @given(parser.inputs)
    def check(drawn: object) -> None:
        seen.examples += 1
        began = time.thread_time()
        try:
            parser.parse(drawn)
        except PlatformError as error:
            if not (error.status < 500 and error.message.encode()):  # it can be sent
                raise
            seen.refused += 1
            seen.statuses[error.status] = seen.statuses.get(error.status, 0) + 1
        except parser.also:
            seen.refused += 1
        spent = time.thread_time() - began
        seen.slowest_s = max(seen.slowest_s, spent)
        assert spent < MOST_CPU_S, f"{spent:.1f} s of one core for one input"

    return check if seed is None else seeded(seed)(check)
