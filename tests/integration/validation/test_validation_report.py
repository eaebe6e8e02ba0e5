from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest

from core.settings import ValidationSettings
from core.validation.report import Report, cause_of_death

END = {"end": {"signature": {"inputs": [], "outputs": []}, "latency_ms": 1.5, "peak_memory_bytes": 7}}
ROW = {"row": {"check": "load", "ok": True, "detail": "Loaded.", "ms": 1.04}}


def feed(*messages: Any) -> Report:
    report = Report()
    for message in messages:
        report.feed(message if isinstance(message, bytes) else json.dumps(message).encode())
    return report


def test_a_whole_report_is_valid() -> None:
    result = feed({"begin": "load"}, ROW, END).result()
    assert result.ok
    assert result.report == [{"check": "load", "ok": True, "detail": "Loaded.", "ms": 1.0}]
    assert (result.latency_ms, result.peak_memory_bytes) == (1.5, 7)


def test_a_report_without_an_end_or_rows_is_not_valid() -> None:
    assert not feed(ROW).result().ok
    assert not feed(END).result().ok


@pytest.mark.parametrize(
    "message",
    [b"", b"hello", b"[]", b"null", b"{}", b'{"row": {}}', b'{"row": {"check": 1}}', b"[" * 100_000, b'{"end": 1}',
     b'{"end": {"signature": {"inputs": 3, "outputs": 1}, "latency_ms": 1, "peak_memory_bytes": 1}}',
     b'{"row": {"check": "a", "ok": true, "detail": "", "ms": Infinity}}'],
)  # fmt: skip
def test_what_is_no_report_makes_the_model_invalid(message: bytes) -> None:
    report = feed(ROW, message, END)
    assert report.broken
    assert not report.result().ok


def test_words_after_the_end_and_endless_rows_make_the_model_invalid() -> None:
    assert feed(ROW, END, ROW).broken
    assert feed(*[ROW] * 101).broken


def test_only_true_is_ok_and_texts_are_bounded() -> None:
    (row,) = feed({"row": {"check": "x" * 999, "ok": "yes", "detail": "y" * 9999, "ms": 1}}).rows
    assert row["ok"] is False
    assert len(row["check"]) == 64
    assert len(row["detail"]) == 1000


@pytest.mark.parametrize(
    ("returncode", "stderr", "said"),
    [
        (-signal.SIGXCPU, b"", "CPU time"),
        (-signal.SIGABRT, b"terminate called after throwing an instance of 'std::bad_alloc'", "ran out of memory"),
        (-signal.SIGKILL, b"", "killed from outside"),
        (-signal.SIGSEGV, b"", r"signal 11 \(SIGSEGV\)"),
        (-63, b"", r"signal 63"),
        (1, b"MemoryError", "ran out of memory"),
        (3, b"", "status 3"),
    ],
)
def test_every_death_has_its_sentence(returncode: int, stderr: bytes, said: str) -> None:
    assert re.search(said, cause_of_death(returncode, stderr, ValidationSettings()))
