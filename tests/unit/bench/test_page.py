"""Table and page: everything said, well-formed, and nothing loaded from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from app.bench.page import page
from app.bench.plots import Bar, bars, stacks
from app.bench.table import ms, signed_ms, table
from tests.unit.bench.points import full_report, point, report

_VOID = {"meta", "br"}


class _Outline(HTMLParser):
    """Fails where a tag is not closed in its turn; keeps what the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.names.append(tag)
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _outline(text: str) -> _Outline:
    outline = _Outline()
    outline.feed(text)
    outline.close()
    assert outline.open == []
    return outline


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    text = page(full_report())
    outline = _outline(text)
    assert outline.names.count("svg") == 4
    assert outline.names.count("title") == 1 + 4  # a plot without a name cannot be heard
    assert len(set(outline.ids)) == len(outline.ids)
    assert not {"script", "link", "img", "iframe"} & set(outline.names)
    assert not [name for name, _ in outline.attributes if name in ("src", "href") or name.startswith("on")]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", text)


def test_every_plot_is_xml_with_a_table_beside_it() -> None:
    text = page(full_report())
    plots = re.findall(r"<figure>(<svg.*?</svg>)</figure><div class=\"scroll\"[^>]*><table>", text, re.DOTALL)
    assert len(plots) == 4
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.attrib["role"] == "img"
        named = root.attrib["aria-labelledby"].split()
        assert [child.attrib["id"] for child in root[:2]] == named


def test_what_others_wrote_is_text() -> None:
    text = page(full_report(model="<script>alert(1)</script>", input='"><img src=x>'))
    _outline(text)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;full&gt; &amp; busy." in text


def test_an_incomplete_page_says_so_and_draws_what_there_is() -> None:
    text = page(report(point("http", "closed", 1, 2.0), complete=False))
    outline = _outline(text)
    assert "Not complete" in text
    assert outline.names.count("svg") == 2


def test_the_table_says_what_was_measured_and_each_layers_cost() -> None:
    lines = table(full_report()).splitlines()
    assert lines[0].startswith("cats version 3 (tensor) by onnx 1.2 as uploaded, on cpu, 1 or 2 threads a run, ")
    assert lines[0].endswith(", batches of up to 32")
    assert "cat.jpg (9 bytes); 1 s a line" in lines[1]
    assert "2 cores of Abacus <9>" in lines[2]
    assert any(re.search(r"core .* 3\.00 .*\+2\.00 ms to engine", line) for line in lines)
    assert any(re.search(r"http .* 7\.00 .* 2 .*\+4\.00 ms to core", line) for line in lines)
    assert "http, callers 1: 2 failed: The server answered 503: <full> & busy." in lines
    assert any(line.startswith("core, due/s 50: 1 could not be sent in time") for line in lines)


def test_a_busy_machine_is_told() -> None:
    busy = full_report()
    assert "Others were at work" not in table(busy) + page(busy)
    busy.machine["load_before"] = 1.5
    assert "Others were at work" in table(busy)
    assert "Others were at work" in page(busy)


def test_bars_are_as_long_as_their_values() -> None:
    groups = {"a": [Bar("core", 10, "10", 20)], "b": [Bar("core", 5, "5")]}
    common, own = (_widths(bars("k", "t", "d", groups, common=shared)) for shared in (True, False))
    assert common[0] == pytest.approx(2 * common[1], abs=0.2)
    assert own[0] == pytest.approx(own[1] / 2, abs=0.2)  # its whisker goes to the end


def test_what_is_below_zero_has_no_length() -> None:
    plot = stacks("k", "t", "d", {"a": [Bar("engine", 30, "30 ms"), Bar("core", -1, "-1"), Bar("http", 10, "10")]})
    assert _widths(plot) == pytest.approx([315, 0, 105])


def _widths(plot: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', plot)]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0061, "0.006"), (1.234, "1.23"), (27.66, "27.7"), (207.4, "207")]
)
def test_milliseconds_keep_what_means_something(value: float | None, text: str) -> None:
    assert ms(value) == text


def test_what_is_added_has_a_sign() -> None:
    assert [signed_ms(0.5), signed_ms(-2)] == ["+0.500 ms", "−2.00 ms"]
