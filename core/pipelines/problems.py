"""What is wrong with a definition: every problem with its line, not only the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.errors import InvalidPackage, InvalidPipeline
from core.store.yaml_reader import Document, Where, dotted

FILE: Final = "graph.yaml"
MAX_PROBLEMS: Final = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `line` counts from 1; None where the whole document is meant."""

    line: int | None
    where: str
    message: str

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line is not None else ""
        return f"{FILE}{line}: {self.where}: {self.message}" if self.where else f"{FILE}{line}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return {"line": self.line, "where": self.where, "message": self.message}


class WrongPipeline(InvalidPipeline):
    """An InvalidPipeline that knows all that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first, *others = problems
        count = f"are {len(others)} more problems" if len(others) > 1 else "is another problem"
        more = f" There {count}; ask for all of them with a check alone." if others else ""
        super().__init__(f"{first}{more}")
        self.problems = list(problems)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message: some of them, where there are many."""
    known = list(names)
    return (", ".join(known[:most]) + (" …" if len(known) > most else "")) or "none"


class Problems:
    """Collects what is wrong with one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.found: list[Problem] = []

    def add(self, where: Where, message: str) -> None:
        """Note a problem; more than `MAX_PROBLEMS` help nobody."""
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(Problem(self.document.line(where), dotted(where) if where else "", message))

    def check(self) -> None:
        """Raises WrongPipeline where anything was noted, in the order of the lines."""
        if self.found:
            raise WrongPipeline(sorted(self.found, key=lambda problem: problem.line or 0))


def from_package_error(error: InvalidPackage) -> WrongPipeline:
    """The YAML reader's sentence, which names file and line already, as a problem."""
    head, _, message = error.message.partition(": ")
    _, _, line = head.partition(", line ")
    if head.startswith(FILE) and line.isdigit() and message:
        return WrongPipeline([Problem(int(line), "", message)])
    return WrongPipeline([Problem(None, "", error.message.removeprefix(FILE).strip())])
