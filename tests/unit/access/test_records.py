from __future__ import annotations

import dataclasses
import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.access.addresses import read_network
from core.access.patterns import NamePattern
from core.access.records import TokenRecord


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_patterns_match_as_the_shells_do(pattern: str, name: str) -> None:
    assert NamePattern(pattern).matches(name) is fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize("pattern", ["a?", "[ab]", "a.", "a+"])
def test_only_the_star_is_special(pattern: str) -> None:
    assert NamePattern(pattern).matches(pattern)
    assert not NamePattern(pattern).matches("ab")


def test_a_nasty_pattern_takes_no_time() -> None:
    started = time.perf_counter()
    assert not NamePattern("*a" * 500).matches("a" * 499 + "b")
    assert time.perf_counter() - started < 5, "by trying every way it would take for ever"


def test_a_record_allows_what_one_of_its_patterns_fits() -> None:
    record = TokenRecord(1, "robot", models=("cat-*", "dog"))
    assert [record.allows_model(name) for name in ("cat-", "cat-1", "dog", "dogs", "cat", "")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert not TokenRecord(1, "robot", models=()).allows_model("dog")


def test_one_look_says_what_the_three_questions_say() -> None:
    anywhere = TokenRecord(1, "robot")
    narrow = TokenRecord(
        2, "robot", models=("model",), operations=frozenset({"infer"}), ip_allow=(read_network("192.0.2.0/24"),)
    )
    other = TokenRecord(3, "robot", operations=frozenset({"models"}))
    for _ in range(2):  # found, and then remembered
        assert anywhere.may_infer("cats", "")
        assert narrow.may_infer("model", "192.0.2.7")
        assert not narrow.may_infer("cats", "192.0.2.7")
        assert not narrow.may_infer("model", "198.51.100.7")
        assert not narrow.allows_model("192.0.2.7")
        assert not other.may_infer("cats", "")
    anywhere.owner.hidden = frozenset({"cats"})  # at any time
    assert not anywhere.may_infer("cats", "")


def test_invented_names_do_not_pile_up() -> None:
    record = TokenRecord(1, "robot", models=("*",))
    assert all(record.allows_model(f"name-{number}") for number in range(10_000))
    assert all(record.may_infer(f"name-{number}", "") for number in range(1000))
    assert len(record._known) <= 256
    assert not record.allows_model("x" * 64)


def test_a_model_called_like_an_address_opens_no_address() -> None:
    record = TokenRecord(1, "robot", models=("10.*",), ip_allow=(read_network("192.0.2.0/24"),))
    for _ in range(2):  # found, and then remembered
        assert record.allows_model("10.0.0.1")
        assert not record.allows_address("10.0.0.1")
        assert record.allows_address("192.0.2.7")
        assert not record.allows_model("192.0.2.7")
        assert not record.allows_address("")


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TokenRecord(1, "robot").revoked = True  # type: ignore[misc]
