"""Logs that cannot be written stop nobody."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from core.logs import log_at


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What is configured here is configured for the whole process."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


class Full(io.StringIO):
    """A disk without room."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_line_that_cannot_be_written_is_lost(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    closed, written = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    log_at("info", as_json=as_json)
    closed.close()
    structlog.get_logger("x").info("to nobody")
    monkeypatch.setattr(sys, "stderr", Full())
    structlog.get_logger("x").info("to a full disk")
    monkeypatch.setattr(sys, "stderr", written)
    structlog.get_logger("x").info("to somebody")
    logging.getLogger("y").warning("of a library")
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert "to somebody" in lines[0]
    assert "of a library" in lines[1]


def test_malformed_bodies_write_no_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their senders are told; who sends many must not fill the log with what belongs to no request."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    log_at("info")
    parser = MultipartParser(b"edge")
    with pytest.raises(MultipartParseError):
        parser.write(b"no edge at all")
    assert written.getvalue() == ""
    logging.getLogger("another.library").warning("is heard")
    assert "is heard" in written.getvalue()
