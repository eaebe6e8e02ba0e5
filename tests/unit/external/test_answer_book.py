"""Answers that are put down first and counted later."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from app.answer_book import MOST, AnswerBook
from app.external.oip_statistics import Statistics
from app.tallies import counts_of, note_answer, statistics_of, traffic_of
from core.metrics import OK, STAGES, Counts, ModelTraffic
from core.serving.request import InferenceResult, Timing
from core.signature import Signature


class Named:
    """What counting asks of a target."""

    task, modality, signature = "tensor", "tensor", Signature((), ())

    def __init__(self, model: str, version: int) -> None:
        self.model, self.version = model, version


def _platform() -> Any:
    traffic: defaultdict[str, ModelTraffic] = defaultdict(ModelTraffic)
    return SimpleNamespace(answers=AnswerBook(), counts=Counts(), traffic=traffic, statistics=Statistics())


def _result(target: Named, cache: str | None = None) -> InferenceResult:
    timing = Timing(queue=1, batch_wait=0.5, preprocess=0, infer=3, postprocess=4, total=10.5)
    return InferenceResult(target.model, target.version, target.task, timing, items=2, cache=cache)


def test_all_that_read_see_what_was_put_down() -> None:
    platform, first, second = _platform(), Named("m", 1), Named("m", 2)
    for target in (first, second, first):
        note_answer(platform, target, _result(target))
    assert not platform.counts.versions  # nothing was asked yet
    assert counts_of(platform, None).versions["m", 1].requests == {OK: 2}
    assert counts_of(platform, None).versions["m", 2].requests == {OK: 1}
    assert (traffic_of(platform, None)["m"].requests, traffic_of(platform, None)["m"].total_ms) == (3, 31.5)
    note_answer(platform, second, _result(second))
    assert statistics_of(platform, second, None).inferences == 4
    sums_ms = dict(zip(STAGES, counts_of(platform, None).versions["m", 2].sums_ms, strict=True))
    assert sums_ms == {
        "queue": 2,
        "batch_wait": 1,
        "preprocess": 0,
        "infer": 6,
        "postprocess": 8,
        "total": 21,
        "load": 0,
    }


def test_what_waits_to_be_counted_is_bounded() -> None:
    platform, target = _platform(), Named("m", 1)
    for _ in range(MOST - 1):
        note_answer(platform, target, _result(target))
    assert not platform.counts.versions
    note_answer(platform, target, _result(target))
    assert platform.counts.versions["m", 1].requests == {OK: MOST}
    assert platform.answers.take() == []


def test_what_a_cache_or_a_load_had_to_do_with_is_counted_too() -> None:
    platform, target = _platform(), Named("m", 1)
    note_answer(platform, target, _result(target, cache="hit"))
    note_answer(platform, target, _result(target), load_ms=40)
    counts = counts_of(platform, None).versions["m", 1]
    assert (counts.requests, counts.cache, counts.sums_ms[-1]) == ({OK: 2}, {"hit": 1}, 40)
    assert statistics_of(platform, target, None).cache_hit.count == 1
