"""The contract of a built-in operation: its ports and options, the types that come out, and the work itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from core.pipelines.types import Type

_SAID: Final = {"number": "a number", "integer": "a whole number", "text": "text", "boolean": "true or false"}
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "number": (int, float),
    "integer": (int,),
    "text": (str,),
    "boolean": (bool,),
}


class Misfit(Exception):
    """What was given does not fit the operation; the message is a sentence. `at` names a port or an option."""

    def __init__(self, message: str, at: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of an operation. `kind` is number, integer, text, boolean, texts, or any."""

    kind: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    needed: bool = False

    def problem(self, value: Any) -> str | None:
        """Why a value cannot be used; None where it can."""
        if self.kind == "any":
            return None
        if self.kind == "texts":
            good = isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
            return None if good else "must be a list of texts; put odd ones in quotes"
        if not isinstance(value, _KINDS[self.kind]) or (isinstance(value, bool) and self.kind != "boolean"):
            return f"must be {_SAID[self.kind]}"
        low, high = self.low, self.high
        if low is not None and high is not None and isinstance(value, int | float) and not low <= value <= high:
            return f"must be from {low:g} to {high:g}"
        return None


class Operation(ABC):
    """One kind of built-in node. Stateless; `run` may be called from any thread."""

    ports: ClassVar[Mapping[str, Type | None]] = {}
    """The inputs by name, with the type that each takes; None takes any."""
    optional: ClassVar[frozenset[str]] = frozenset()
    variadic: ClassVar[bool] = False
    """Whether inputs may have any names."""
    options: ClassVar[Mapping[str, Option]] = {}
    heavy: ClassVar[bool] = False
    """Whether `run` takes so long that it belongs into a thread."""

    @abstractmethod
    def outputs(self, inputs: Mapping[str, Type], options: Mapping[str, Any]) -> dict[str, Type]:
        """The output ports. Raises Misfit."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the output ports. Raises InvalidInput."""
