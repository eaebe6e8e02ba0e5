"""The short form: the same inputs each time. `make fuzz` goes on with others."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzzing.checking import Seen, property_of
from tests.fuzzing.parsers import PARSERS

SHORT = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_parses_or_refuses(name: str) -> None:
    seen = Seen()
    SHORT(property_of(PARSERS[name], seen))()
    assert seen.examples >= 20
    assert seen.refused < seen.examples or name in ("session tokens", "tokens and headers")
    assert seen.refused or name in ("addresses", "names")
