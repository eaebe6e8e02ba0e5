"""Texts as they come: what is read, what is refused, and the way back to the original."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, strategies

from core.errors import InvalidInput, PlatformError, TooLarge, UnsupportedMedia
from core.media.text import MAX_TEXT_BYTES, clean, read

ANY_TEXT = strategies.text(strategies.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert read(b"\xef\xbb\xbfhi", "text/plain; charset=UTF-8") == "hi"


@pytest.mark.parametrize(
    ("data", "media_type", "error", "words"),
    [
        (b"a" * (MAX_TEXT_BYTES + 1), "", TooLarge, "1048577 bytes, and may have 1048576"),
        ("Zürich".encode("latin-1"), "text/plain", InvalidInput, "byte 1 does not belong there"),
        (b"half \xed\xa0\x80", "text/plain", InvalidInput, "surrogates never do"),
        ("hi".encode("utf-16"), "text/plain; charset=utf-16", UnsupportedMedia, "not 'utf-16'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe", "text/plain", UnsupportedMedia, "PNG"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, media_type: str, error: type[PlatformError], words: str) -> None:
    with pytest.raises(error, match=words):
        read(data, media_type)


@pytest.mark.parametrize("blank", ["", " \n\t", "\u3000\u2028", "\0\x07\x1b", " \x00 "])
def test_blank_texts_are_refused(blank: str) -> None:
    for whitespace in ("collapse", "keep"):
        with pytest.raises(InvalidInput, match="blank"):
            clean(blank, "NFC", whitespace)  # type: ignore[arg-type]


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        clean("half \ud83d of it")


@pytest.mark.parametrize(
    ("sent", "options", "cleaned"),
    [
        ("  a \r\n\t b  ", {}, "a b"),
        ("a\n b", {"whitespace": "keep"}, "a\n b"),
        ("be\x00ll\x07", {}, "bell"),
        ("cafe\u0301", {}, "caf\u00e9"),
        ("cafe\u0301", {"form": "none"}, "cafe\u0301"),
        ("\ufb01ne \u2460", {}, "\ufb01ne \u2460"),
        ("\ufb01ne \u2460", {"form": "NFKC"}, "fine 1"),
        ("👩‍👩‍👧 ok", {}, "👩‍👩‍👧 ok"),
        ("\u1112\u1161\u11ab", {}, "한"),
    ],
)
def test_cleaning(sent: str, options: dict[str, Any], cleaned: str) -> None:
    assert clean(sent, **options).text == cleaned


def test_spans_lead_back_to_the_text_as_sent() -> None:
    sent = "  In  cafe\u0301\n\x00 \ufb01n!"
    found = clean(sent, "NFKC")
    assert found.text == "In caf\u00e9 fin!"
    start, end = found.original(3, 7)
    assert sent[start:end] == "cafe\u0301"
    start, end = found.original(8, 11)
    assert sent[start:end] == "\ufb01n"


@given(ANY_TEXT, strategies.sampled_from(["NFC", "NFKC"]))
def test_it_is_unicodes_own_form_cluster_by_cluster(sent: str, form: Any) -> None:
    """As Python's `unicodedata` makes it of the whole, controls aside; and every span is in the text."""
    expected = "".join(
        c for c in unicodedata.normalize(form, sent) if unicodedata.category(c) != "Cc" or c.isspace()
    )
    if not expected or expected.isspace():
        return
    found = clean(sent, form, "keep")
    assert found.text == expected
    for place in range(len(found.text)):
        start, end = found.original(place, place + 1)
        assert 0 <= start < end <= len(sent)


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(sent: str) -> None:
    try:
        once = clean(sent).text
    except InvalidInput:
        return
    assert clean(once).text == once
