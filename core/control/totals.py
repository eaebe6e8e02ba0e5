"""What all workers have counted since the control process began, by model.

A worker tells what it has counted since it told last, and the sum is kept here alone: a worker that dies takes
with it only what it had not told yet, and no sum ever goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = dict[str, dict[str, Any]]
"""By model: `versions`, `traffic` and `loaded`, each made of numbers in dicts and lists."""

WINDOW_S = 60
"""Requests by second are kept for so long."""


def add_up(one: Any, other: Any) -> Any:
    """The sum of two of a kind: numbers add, lists place by place, dicts key by key.

    Under a key that begins with `max_` the larger counts.
    """
    if isinstance(one, dict):
        return _add_dicts(one, other)
    if isinstance(one, list):
        return [add_up(a, b) for a, b in zip(one, other, strict=True)]
    return one + other


def _add_dicts(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    added = dict(one)
    for key, value in other.items():
        if key not in added:
            added[key] = value
        elif key.startswith("max_"):
            added[key] = max(added[key], value)
        else:
            added[key] = add_up(added[key], value)
    return added


class Totals:
    """The sums. `loaded` holds what belongs to one load of a version, by its key, and goes with it."""

    def __init__(self) -> None:
        self._models: Report = {}

    def add(self, report: Report, keys: Mapping[str, set[str]], now_s: float) -> None:
        """Add what a worker has counted; `keys` are those that each model serves now, the time is the epoch's."""
        for model, counted in report.items():
            total = self._models[model] = add_up(self._models.get(model, {}), counted)
            seconds = total.get("traffic", {}).get("seconds", {})
            for second in [second for second in seconds if int(second) <= now_s - WINDOW_S]:
                del seconds[second]
            self.keep(model, keys.get(model, set()))

    def keep(self, model: str, keys: set[str]) -> None:
        """Forget the loads of a model that are not among these keys."""
        loaded = self._models.get(model, {}).get("loaded", {})
        for key in loaded.keys() - keys:
            del loaded[key]

    def of(self, model: str | None) -> Report:
        """The sums of one model, or of all of them."""
        if model is None:
            return self._models
        return {model: self._models[model]} if model in self._models else {}
