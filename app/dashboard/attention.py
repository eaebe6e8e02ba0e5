"""What needs somebody: said in a sentence each, the worst first, with where to go."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from app.dashboard import words
from app.dashboard.figures import ERRORS_WARN
from app.readings import Step
from core.database.tables import AccessToken

EXPIRES_SOON: Final = timedelta(days=7)
DISK_SHARE: Final = 0.1
MOST: Final = 10
_ORDER: Final = ("failed", "saturated", "warning", "expiring")


@dataclass(frozen=True, slots=True)
class Matter:
    """One thing to look at."""

    state: str
    subject: str
    sentence: str
    path: str = ""
    action: str = ""
    roll_back: str = ""
    """Where a form is sent that serves again what was served before; empty where that is not offered."""


def matters(found: Iterable[Matter]) -> tuple[Matter, ...]:
    """The worst first, of each subject and state the first that was found; at most MOST."""
    once: dict[tuple[str, str], Matter] = {}
    for matter in found:
        once.setdefault((matter.subject, matter.state), matter)
    return tuple(sorted(once.values(), key=lambda matter: (_ORDER.index(matter.state), matter.subject)))[:MOST]


def not_answering(states: dict[str, str]) -> list[Matter]:
    """Of those that should answer and do not; the reason stands behind the state."""
    return [
        Matter(
            "failed" if said.startswith("failed") else "warning", name, said, f"/dashboard/models/{name}", "look"
        )
        for name, said in states.items()
    ]


def failed(reasons: Mapping[str, str], before: Mapping[str, Sequence[int]], may_change: bool) -> list[Matter]:
    """Deployments that could not be brought into service, by model with the reason. `before` has the versions that
    ran before, for those where a way back is left.
    """
    found = []
    for name, reason in reasons.items():
        path, versions = f"/dashboard/models/{name}", before.get(name, ())
        way = f"{path}/rollback" if may_change and versions else ""
        words = f" Before it, {_versions(versions)} ran." if versions else ""
        sentence = f"{reason.rstrip('.') or 'It failed'}.{words}"
        found.append(Matter("failed", name, sentence, path, "look", way))
    return found


def failing(steps: Sequence[Step]) -> list[Matter]:
    """Models with many errors over these steps."""
    errors: Counter[str] = Counter()
    for step in steps:
        for model, tally in step.models.items():
            if tally.errors:  # most have none, and there may be hundreds of models in each step
                errors[model] += tally.errors
    found = []
    for model, count in errors.items():
        requests = sum(step.models[model].requests for step in steps if model in step.models)
        share = count / requests
        if share > ERRORS_WARN:
            sentence = f"{words.percent(share)} of {words.count(requests)} requests failed here."
            found.append(Matter("failed", model, sentence, f"/dashboard/models/{model}", "look"))
    return found


def _versions(numbers: Sequence[int]) -> str:
    return " and ".join(f"v{number}" for number in numbers)


def expiring(tokens: Sequence[AccessToken], now: datetime) -> list[Matter]:
    """Tokens whose end is near."""
    return [
        Matter(
            "expiring",
            token.name,
            f"The token expires {words.distance((now - token.expires_at).total_seconds())}.",
            f"/dashboard/access/tokens/{token.id}",
            "rotate",
        )
        for token in tokens
        if token.expires_at is not None
    ]


def disk(folder: Path) -> list[Matter]:
    """The disk of the data directory, where it is nearly full. Blocking, a system call."""
    usage = shutil.disk_usage(folder)
    if usage.free > usage.total * DISK_SHARE:
        return []
    sentence = f"{words.size(usage.free)} are left of {words.size(usage.total)}; uploads stop when it is full."
    return [Matter("warning", "disk", sentence)]
