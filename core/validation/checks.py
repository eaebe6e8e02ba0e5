"""The checks in their order. Runs in the validator's process only: it loads `onnx` and the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import PlatformError
from core.validation.memory import is_out_of_memory, peak_memory_bytes
from core.validation.trial import Trial

_MAX_DETAIL: Final = 600

# (name in the report, check, names of the checks without which it makes no sense)
CHECKS: Final[tuple[tuple[str, Callable[[Trial], str], tuple[str, ...]], ...]] = (
    ("manifest", Trial.manifest, ()),
    ("parse", Trial.parse, ("manifest",)),
    ("external_data", Trial.external_data, ("parse",)),
    ("operators", Trial.operators, ("external_data",)),
    ("structure", Trial.structure, ("operators",)),
    ("load", Trial.load, ("structure",)),
    ("signature", Trial.check_signature, ("load",)),
    ("task", Trial.bind_task, ("signature",)),
    ("dry_run", Trial.dry_run, ("signature",)),
    ("example", Trial.example, ("task", "dry_run")),
    ("finite", Trial.finite, ("dry_run",)),
    ("latency", Trial.latency, ("dry_run",)),
    ("memory", Trial.memory, ("dry_run",)),
)


def run_checks(job: Mapping[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
    """Run every check whose needs are met and emit a row for each, then the end."""
    root = Path(job["root"])
    trial = Trial(root, job["manifest"], trust_plans=bool(job["trust_plans"]))
    passed: set[str] = set()
    for name, check, needs in CHECKS:
        if not passed.issuperset(needs):
            continue
        emit({"begin": name})
        started = time.perf_counter()
        ok, detail = _outcome(check, trial, job)
        ms = round((time.perf_counter() - started) * 1000, 1)
        emit({"row": {"check": name, "ok": ok, "detail": _clean(detail, root), "ms": ms}})
        if ok:
            passed.add(name)
    signature = trial.signature.to_json() if trial.signature else None
    memory_bytes = peak_memory_bytes() if "memory" in passed else None
    emit({"end": {"signature": signature, "latency_ms": trial.latency_ms, "peak_memory_bytes": memory_bytes}})


def _outcome(check: Callable[[Trial], str], trial: Trial, job: Mapping[str, Any]) -> tuple[bool, str]:
    try:
        return True, check(trial)
    except Exception as error:
        if is_out_of_memory(error):
            limit = int(job["memory_bytes"]) >> 20
            return False, (
                f"The model ran out of memory: it needs more than the {limit} MiB that validation allows "
                "(validation.memory_bytes); make it smaller, or ask for a higher limit."
            )
        if isinstance(error, PlatformError):
            return False, error.message
        return False, f"The check could not be done ({type(error).__name__}); the model may be damaged."


def _clean(detail: str, root: Path) -> str:
    """One line of bounded length, without a place on this machine."""
    for place in (str(root.resolve()), str(root)):
        detail = detail.replace(f"{place}/", "").replace(place, "the package")
    return " ".join(detail.split())[:_MAX_DETAIL]
