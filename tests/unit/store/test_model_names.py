from __future__ import annotations

import pytest

from core.errors import BadRequest
from core.store.names import check_model_name


@pytest.mark.parametrize("name", ["a", "0", "efficientnet-lite0", "a.b_c-d", "a" * 63])
def test_a_plain_name_is_given_back(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "A", "-a", ".a", "_a", "..", "../../x", "a..b", "a/b", "a\\b", "a\0", "a\n", "a" * 64, "%2e%2e%2f",
     "%252e", "mоdel", "ａ", "١", "a b", "<script>"],
)  # fmt: skip
def test_any_other_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(BadRequest, match="1 to 63 characters"):
        check_model_name(name)
