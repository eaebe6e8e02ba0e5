"""Headers as they are written: the same as those that go one by one."""

from __future__ import annotations

from app.answer_headers import FixedHeaders, lines_of
from app.external.door import limit_headers, limit_lines
from core.access.windows import LimitState
from core.settings import Settings


def test_every_answers_headers() -> None:
    fixed = FixedHeaders(Settings())
    assert fixed.lines("some-id") == lines_of(fixed.of("some-id"))


def test_those_of_a_limit() -> None:
    state = LimitState(100, 99, 1_800_000_060)
    assert limit_lines(state) == lines_of(limit_headers(state))
    assert limit_headers(None) == []
