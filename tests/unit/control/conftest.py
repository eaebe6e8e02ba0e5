from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import fresh_database


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty SQLite database."""
    with fresh_database("sqlite", tmp_path) as url:
        yield url
