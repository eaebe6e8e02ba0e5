from __future__ import annotations

import pytest

from core.serving.inline_policy import INLINE_S, inline_items
from core.signature import Signature, TensorSpec


def signature(*shape: int) -> Signature:
    return Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", (-1, 2)),))


@pytest.mark.parametrize(
    ("seconds", "most"),
    [
        ({}, 0),
        ({1: INLINE_S / 2}, 1),
        ({1: INLINE_S * 2}, 0),
        ({1: INLINE_S / 2, 2: INLINE_S * 0.6, 4: INLINE_S * 0.9, 8: INLINE_S * 1.1}, 4),
        # What comes after a size that takes too long does not count, even where it was measured to be fast.
        ({1: INLINE_S / 2, 2: INLINE_S * 2, 4: INLINE_S / 2}, 1),
    ],
)
def test_the_largest_batch_that_is_short(seconds, most) -> None:
    costs = {size: time / size for size, time in seconds.items()}
    assert inline_items(True, signature(-1, 4), costs) == most


def test_never_where_time_does_not_follow_from_what_was_measured() -> None:
    costs = {1: INLINE_S / 100}
    assert inline_items(True, signature(-1, 4), costs) == 1
    assert inline_items(False, signature(-1, 4), costs) == 0
    assert inline_items(True, signature(-1, -1), costs) == 0
