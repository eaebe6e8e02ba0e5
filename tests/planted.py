"""Errors that are planted into a task, to see that its golden test notices them.

A comparison with a reference is worth what it notices. Each is a function that two tests call: the golden one,
and by one marked `planted` with the name of its task, which breaks something first and expects it to fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def changed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Let what a function or method of `owner` answers be changed on its way."""
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: change(right(*given, **named)))


def must_notice(compare: Callable[..., object], *given: Any) -> None:
    """Call a comparison with a reference, which has to find that they differ."""
    with pytest.raises(AssertionError):
        compare(*given)
