from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.dashboard import words

SPACE = "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.42, "0.42"), (0.004219, "0.0042"), (6.14, "6.1"), (73.4, "73"), (412, "410"), (9.96, "10")],
)
def test_two_significant_digits(value: float, text: str) -> None:
    assert words.significant(value) == text


def test_figures_with_units() -> None:
    assert words.ms(6.14) == f"6.1{SPACE}ms"
    assert words.ms(12_345) == f"12{SPACE}s"
    assert words.size(0) == f"0{SPACE}B"
    assert words.size(1536) == f"1.50{SPACE}KiB"
    assert words.size(5 << 30) == f"5.00{SPACE}GiB"
    assert words.percent(0.0002) == f"0.020{SPACE}%"
    assert words.percent(1) == f"100{SPACE}%"
    assert words.count(41_000) == "41,000"
    assert {words.ms(None), words.size(None), words.percent(None), words.rate(None)} == {"–"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (-3e5, "in 3 days"),
    ],
)
def test_distances(seconds: float, text: str) -> None:
    assert words.distance(seconds) == text


def test_a_time_says_its_exact_moment_too() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    html = words.ago(now - timedelta(minutes=3), now)
    assert html == (
        '<time datetime="2026-01-02T03:01:05+00:00" title="2026-01-02 03:01:05 UTC" data-ago>3 minutes ago</time>'
    )
    assert words.ago(None) == "–"


def test_a_sparkline_spans_its_box() -> None:
    assert words.points([0, 1, 2], 100, 24) == "0.0,23.0 50.0,12.0 100.0,1.0"
    assert words.points([0, 0]) == "0.0,23.0 100.0,23.0"
    assert words.points([1]) == ""


def test_browsers_by_name() -> None:
    agent = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120 Safari/537.36 Edg/120"
    assert words.browser(agent) == "Edge on Windows"
    assert words.browser("curl/8") == "curl/8"
    assert words.browser("") == "unknown"
