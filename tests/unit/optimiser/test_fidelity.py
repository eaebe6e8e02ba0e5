"""How closely answers follow others."""

from __future__ import annotations

import numpy as np
import pytest

from core.optimiser.fidelity import Comparison, class_output

SCORES = np.array([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]], np.float32)


def test_the_same_answers_lose_nothing() -> None:
    comparison = Comparison("y")
    comparison.add({"y": SCORES}, {"y": SCORES.copy()})
    comparison.add({"y": SCORES}, {"y": SCORES.copy()})
    found = comparison.result()
    assert (found.items, found.max_error, found.top1_agreement, found.accuracy) == (4, 0.0, 1.0, None)
    assert found.cosine == pytest.approx(1)


def test_what_differs_is_counted() -> None:
    other = np.array([[3.0, 1.0, 2.0], [5.0, 1.0, 0.5]], np.float32)
    comparison = Comparison("y")
    comparison.add({"y": SCORES}, {"y": other}, [1, None])
    found = comparison.result()
    assert (found.top1_agreement, found.max_error) == (0.5, 2.0)
    assert (found.accuracy, found.reference_accuracy, found.labelled) == (0.0, 1.0, 1)
    expected = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(SCORES, other, strict=True)]
    assert found.cosine == pytest.approx(np.mean(expected))


def test_of_several_outputs_the_worst_counts() -> None:
    comparison = Comparison()
    reference = {"a": np.ones((1, 2), np.float32), "b": np.array([[[2.0]]]), "name": np.array(["x"], object)}
    comparison.add(reference, {"a": np.ones((1, 2)), "b": np.array([[[-2.0]]]), "name": np.array(["x"], object)})
    found = comparison.result()
    assert found.cosine == pytest.approx(-1)
    assert found.max_error == 4.0


def test_a_large_output_hides_no_small_one() -> None:
    boxes, scores = np.full((1, 400), 500.0), np.full((1, 100), 0.5)
    comparison = Comparison()
    comparison.add({"boxes": boxes, "scores": scores}, {"boxes": boxes, "scores": np.zeros_like(scores)})
    assert comparison.result().cosine == 0.0


def test_masked_logits_that_are_alike_are_alike() -> None:
    masked = np.array([[1.0, -np.inf, 2.0]])
    comparison = Comparison()
    comparison.add({"y": masked}, {"y": masked.copy()})
    found = comparison.result()
    assert (found.cosine, found.max_error) == (pytest.approx(1.0), 0.0)


def test_other_texts_are_seen() -> None:
    comparison = Comparison()
    comparison.add({"y": np.array([["a", "b"]], object)}, {"y": np.array([["a", "c"]], object)})
    assert comparison.result().cosine == pytest.approx(1 / np.sqrt(2))


def test_answers_that_are_no_numbers_are_far_off() -> None:
    comparison = Comparison("y")
    comparison.add({"y": SCORES}, {"y": np.full_like(SCORES, np.nan)})
    found = comparison.result()
    assert found.cosine == 0.0
    assert found.max_error > 1e30


def test_zeros_are_like_zeros_and_unlike_others() -> None:
    zeros = np.zeros((1, 3), np.float32)
    comparison = Comparison()
    comparison.add({"y": zeros}, {"y": zeros})
    assert comparison.result().cosine == 1.0
    comparison.add({"y": zeros}, {"y": zeros + 1})
    assert comparison.result().cosine == 0.5


@pytest.mark.parametrize("outputs", [{}, {"y": SCORES[:1]}, {"z": SCORES}])
def test_other_outputs_cannot_be_compared(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="missing or has another shape"):
        Comparison().add({"y": SCORES}, outputs)


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        Comparison().result()


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        ({"y": SCORES}, "y"),
        ({"y": SCORES[:, :1]}, None),
        ({"y": SCORES.astype(np.int64)}, None),
        ({"y": SCORES, "z": SCORES}, None),
        ({"y": SCORES[None]}, None),
    ],
)
def test_what_looks_like_classes(outputs: dict[str, np.ndarray], name: str | None) -> None:
    assert class_output(outputs) == name
