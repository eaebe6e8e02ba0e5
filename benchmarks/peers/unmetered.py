"""Pulvinar without the counting of usage, to measure what that costs."""

from __future__ import annotations

from core.access.usage import UsageBook


def _uncounted(*_: object, **__: object) -> None:
    return None


if __name__ == "__main__":
    UsageBook.add = _uncounted  # type: ignore[method-assign]
    from run import main

    main()
