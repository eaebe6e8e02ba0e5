"""What the validator's process said, put together and never trusted: a hostile model may have taken it over."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from core.settings import ValidationSettings
from core.signature import Signature

_MAX_ROWS: Final = 100
_MAX_NAME: Final = 64
_MAX_DETAIL: Final = 1000

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Whether the model may be deployed, and what was found.

    `report` rows are `{check, ok, detail, ms}`; `signature` is as `Signature.to_json` gives it; the figures are
    None where the checks did not get that far.
    """

    ok: bool
    report: list[Row]
    signature: dict[str, Any] | None
    latency_ms: float | None
    peak_memory_bytes: int | None


@dataclass(slots=True)
class Report:
    """Gathers the lines of one validation."""

    on_row: Callable[[Row], None] | None = None
    rows: list[Row] = field(default_factory=list)
    running: str = "start"
    end: dict[str, Any] | None = None
    broken: bool = False

    def feed(self, line: bytes) -> bool:
        """Take a line; False when it is not one that the validator writes, and nothing more should be read."""
        try:
            self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            self.broken = True
        return not self.broken

    def add(self, check: str, ok: bool, detail: str, ms: float) -> None:
        """Add a row and tell who listens."""
        row = {"check": check[:_MAX_NAME], "ok": ok, "detail": detail[:_MAX_DETAIL], "ms": ms}
        self.rows.append(row)
        if self.on_row:
            self.on_row(row)

    def result(self) -> ValidationResult:
        """The verdict: valid only when the validator came to its end and every row is."""
        end = self.end or {}
        ok = self.end is not None and not self.broken and bool(self.rows) and all(row["ok"] for row in self.rows)
        return ValidationResult(
            ok, self.rows, end.get("signature"), end.get("latency_ms"), end.get("peak_memory_bytes")
        )

    def _take(self, message: dict[str, Any]) -> None:
        if self.end is not None or len(self.rows) >= _MAX_ROWS:
            raise ValueError("more than there can be")
        if "begin" in message:
            self.running = str(message["begin"])[:_MAX_NAME]
        elif "row" in message:
            row = message["row"]
            self.add(str(row["check"]), row["ok"] is True, str(row["detail"]), round(_finite(row["ms"]), 1))
        else:
            self.end = _checked_end(message["end"])


def _checked_end(end: dict[str, Any]) -> dict[str, Any]:
    signature, latency, memory = end["signature"], end["latency_ms"], end["peak_memory_bytes"]
    return {
        "signature": None if signature is None else Signature.from_json(signature).to_json(),
        "latency_ms": None if latency is None else _finite(latency),
        "peak_memory_bytes": None if memory is None else int(_finite(memory)),
    }


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("no measurement is infinite")
    return number


def cause_of_death(returncode: int, stderr: bytes, limits: ValidationSettings) -> str:
    """Why a validator that did not come to its end went away, as a sentence for the report."""
    number = -returncode if returncode < 0 else 0
    if number == signal.SIGXCPU:
        return (
            f"The model used more than the {limits.cpu_s} s of CPU time that validation allows "
            "(validation.cpu_s); look for loops that do not end, or ask for a higher limit."
        )
    if b"bad_alloc" in stderr or b"MemoryError" in stderr or b"cannot allocate memory" in stderr.lower():
        return (
            f"The model ran out of memory: it needs more than the {limits.memory_bytes >> 20} MiB that validation "
            "allows (validation.memory_bytes); make it smaller, or ask for a higher limit."
        )
    if number == signal.SIGKILL:
        return "The validator was killed from outside, most likely because the machine ran out of memory."
    if number:
        return f"The model crashed the validator with signal {number} ({_signal_name(number)}); export it again."
    return f"The validator ended early with status {returncode}; try again, or export the model again."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
