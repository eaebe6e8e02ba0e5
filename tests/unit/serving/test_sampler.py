from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from core.serving.request import InferenceRequest
from core.serving.sampler import Sampler


@pytest.fixture(autouse=True)
def _the_same_chances() -> None:
    random.seed(11)


def test_a_part_of_the_requests_is_taken() -> None:
    taken: list[InferenceRequest] = []
    sampler = Sampler(0.1, 10_000, taken.append)
    for _ in range(5000):
        sampler.take(InferenceRequest())
    assert 400 < len(taken) < 600


def test_together_with_replacement_by_chance_it_is_a_reservoir() -> None:
    """Each of 50 inputs has about the same chance to be among the 10 that are kept."""
    counts: Counter[int] = Counter()
    for _ in range(400):
        kept: list[int] = []

        def put(request: InferenceRequest, kept: list[int] = kept) -> None:
            if len(kept) == 10:
                kept.pop(random.randrange(10))
            kept.append(int(request.parameters["number"]))

        sampler = Sampler(1.0, 10, put)
        for number in range(50):
            sampler.take(InferenceRequest(parameters={"number": number}))
        counts.update(kept)
    assert counts.total() == 4000
    means = np.array([counts[number] for number in range(50)]).reshape(5, 10).mean(axis=1)
    assert (np.abs(means - 80) < 16).all(), means


def test_what_was_seen_before_counts() -> None:
    taken: list[InferenceRequest] = []
    sampler = Sampler(1.0, 10, taken.append, seen=10_000)
    for _ in range(100):
        sampler.take(InferenceRequest())
    assert len(taken) < 5
