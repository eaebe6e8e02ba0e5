"""Patterns of model names."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_NAME_LENGTH = 63


class NamePattern:
    """A name in which `*` stands for any characters. Matching takes linear time, whatever the pattern."""

    __slots__ = ("_first", "_last", "_middle", "_name")

    def __init__(self, pattern: str) -> None:
        first, *rest = pattern.split("*")
        self._name = None if rest else first
        self._first = first
        self._last = rest[-1] if rest else ""
        self._middle = tuple(part for part in rest[:-1] if part)

    def matches(self, name: str) -> bool:
        """Whether `name` as a whole fits."""
        if self._name is not None:
            return name == self._name
        end = len(name) - len(self._last)
        at = len(self._first)
        if at > end or not (name.startswith(self._first) and name.endswith(self._last)):
            return False
        for part in self._middle:
            at = name.find(part, at, end) + len(part)
            if at < len(part):
                return False
        return True


def any_matches(patterns: Sequence[NamePattern], name: str) -> bool:
    """Whether one of the patterns fits; longer than a model's name may be never does."""
    return len(name) <= _MAX_NAME_LENGTH and any(pattern.matches(name) for pattern in patterns)
