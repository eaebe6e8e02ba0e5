"""Metrics of many models, and of shadows."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import orjson
import pytest

from app.external.metrics_text import Observed, render
from app.state import Platform
from app.tallies import counts_of
from core.control.totals import Report, Totals
from core.metrics import ANSWER_STAGES, STAGE_BOUNDS_MS, Counts, ModelTraffic, VersionCounts
from core.serving.runner import RunnerStats

MODELS = 1000


def _counts(models: int) -> Counts:
    counts = Counts()
    for number in range(models):
        one = counts.of(f"model-{number}", 1)
        for ms in (0.1, 1.5, 15, 150, 1500):
            one.answered(ms, ms / 2, ms, ms, ms, 4 * ms)
        one.ended(429, "rate_limited")
        one.ended(503, "queue_full")
    return counts


def test_a_thousand_models_are_scraped_in_no_time() -> None:
    """100 ms are allowed; the assertion leaves room for a machine that does other things."""
    counts = _counts(MODELS)
    stats = {key: RunnerStats(3, 1, 2, batch_sizes={1: 4, 8: 2}) for key in counts.versions}
    swaps = {model: 1 for model, _ in counts.versions}
    took_s = []
    for _ in range(3):
        before = time.perf_counter()
        text = render(counts, Observed(stats, {}, swaps, {"serving": MODELS}))
        took_s.append(time.perf_counter() - before)
    print(f"{MODELS} models: {len(text) / 1e6:.1f} MB in {min(took_s) * 1000:.0f} ms")
    assert text.count(b'stage="total",le="+Inf"} 5\n') == MODELS
    assert text.count(b'reason="queue_full"} 1\n') == MODELS
    assert min(took_s) < 1


def test_a_thousand_models_come_from_the_workers_in_no_time() -> None:
    """What a scrape costs beside the rendering: the control process' sums, to the worker and into counts."""
    totals = Totals()
    report: Report = {
        model: {"versions": {"1": one.to_json()}} for (model, _), one in _counts(MODELS).versions.items()
    }
    totals.add(report, {}, 0)
    totals.add(report, {}, 0)
    took_s = []
    for _ in range(3):
        before = time.perf_counter()
        counts = counts_of(cast(Platform, None), orjson.loads(orjson.dumps(totals.of(None))))
        took_s.append(time.perf_counter() - before)
    print(f"{MODELS} models: handed over in {min(took_s) * 1000:.0f} ms")
    assert min(took_s) < 1
    assert counts.versions["model-7", 1].requests == {
        (200, "ok"): 10,
        (429, "rate_limited"): 2,
        (503, "queue_full"): 2,
    }


def test_names_are_written_as_they_are() -> None:
    counts = Counts()
    counts.of('100%d "@\\', 1).answered(1, 1, 1, 1, 1, 1)
    text = render(counts, Observed()).decode()
    assert 'pulvinar_stage_seconds_count{model="100%d \\"@\\\\",version="1",stage="total"} 1\n' in text


def test_a_shadow_is_told_by_outcome_and_side() -> None:
    shadow = {"compared": 5, "agreed": 3, "errors": 2, "dropped": 1, "live_ms": 50.0, "shadow_ms": 75.0}
    text = render(Counts(), Observed(shadows={("m", 2): shadow})).decode()
    for outcome, count in (("agreed", 3), ("differed", 2), ("error", 2), ("dropped", 1)):
        assert f'pulvinar_shadow_requests_total{{model="m",version="2",outcome="{outcome}"}} {count}\n' in text
    assert 'pulvinar_shadow_seconds_total{model="m",version="2",side="live"} 0.05\n' in text
    assert 'pulvinar_shadow_seconds_total{model="m",version="2",side="shadow"} 0.075\n' in text


def test_many_answers_are_counted_as_one_by_one() -> None:
    """On the buckets' bounds, between them, below and beyond all."""
    times_ms = np.array([0.0, 0.25, *STAGE_BOUNDS_MS, 0.75, 40_000.0])
    answers = np.random.default_rng(7).choice(times_ms, (700, ANSWER_STAGES))
    together, alone = VersionCounts(), VersionCounts()
    for counts in (together, alone):
        counts.answered(1, 2, 3, 4, 5, 15)
        counts.waited(20)
    together.answered_all(answers[:300])
    together.answered_all(answers[300:])
    for answer in answers.tolist():
        alone.answered(*answer)
    assert together.requests == alone.requests == {(200, "ok"): 701}
    assert together.buckets == alone.buckets
    assert together.sums_ms == pytest.approx(alone.sums_ms)


def test_counts_come_through_json_as_they_are() -> None:
    counts = _counts(1)
    taken = counts.take()
    assert not counts.versions
    again = Counts()
    again.versions = {key: VersionCounts.from_json(one.to_json()) for key, one in taken.items()}
    assert render(again, Observed()) == render(_counts(1), Observed())


def test_traffic_comes_through_json_as_it_is() -> None:
    traffic = ModelTraffic()
    for second in (100, 100, 101, 159):
        traffic.note(503 if second == 159 else 200, 5, second)
    traffic.note_all(30, np.array([100.9, 101.0, 101.2, 160.0]))  # counted after others that came later
    again = ModelTraffic.from_json(traffic.to_json())
    assert (again.requests, again.errors, again.total_ms) == (8, 1, 50)
    assert again.rate(160.5) == traffic.rate(160.5) == 5 / 60
