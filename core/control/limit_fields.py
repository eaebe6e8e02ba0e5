"""The limits that tokens and tenants have alike."""

from __future__ import annotations

from typing import Any, Final

from core.access.budgets import parse_budgets
from core.access.rates import parse_rates
from core.errors import Unprocessable

LIMIT_FIELDS: Final = ("rate", "burst", "max_concurrency", "budgets")
_NUMBERS: Final = {"burst": 10**9, "max_concurrency": 100_000}


def check_limits(checked: dict[str, Any]) -> None:
    """Check what there is of them, and let lists be lists. Raises Unprocessable, naming the field."""
    for name, parse in (("rate", parse_rates), ("budgets", parse_budgets)):
        if checked.get(name) is not None:
            said = checked[name]
            checked[name] = [said] if isinstance(said, str) else list(said)
            parse(checked[name])
    for name, most in _NUMBERS.items():
        value = checked.get(name)
        if value is not None and not 1 <= value <= most:
            raise Unprocessable(f"{name}: a whole number from 1 to {most}.")
