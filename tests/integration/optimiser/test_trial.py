"""Trials in real processes: what they measure, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from core.errors import TrialFailed
from core.optimiser.candidate import Candidate, Setting, Variant
from core.optimiser.feeds import write_feeds
from core.optimiser.trial import StoppedAsSlower, TrialJob, TrialLimits, run_trial
from tests.unit.engines import models

ONNX = Candidate(Variant("onnx"), Setting(1))
FAKE = Candidate(Variant("fake"), Setting(1))
LIMITS = TrialLimits(wall_s=60)


def _job(folder: Path, candidate: Candidate, artifact: Path, **fields: Any) -> TrialJob:
    feeds = write_feeds([{"x": np.full((1, 3), n, np.float32)} for n in range(4)], folder / "feeds")
    return TrialJob(candidate, artifact, feeds, folder / "outputs", seconds=0.1, **fields)


def test_it_measures_and_the_reference_s_answers_are_kept_and_compared(tmp_path: Path) -> None:
    artifact = models.doubling(tmp_path)
    first = asyncio.run(run_trial(_job(tmp_path, ONNX, artifact, keep=True), LIMITS))
    assert first.fidelity is None
    assert 0 < first.p50_ms <= first.p99_ms
    assert first.throughput_per_s > 100
    assert first.memory_bytes > 1 << 20
    assert first.load_s > 0
    phases: list[str] = []
    job = _job(tmp_path, replace(ONNX, setting=Setting(1, 2, 8)), artifact, compare=True)
    again = asyncio.run(run_trial(job, LIMITS, phases.append))
    assert phases == ["loading", "measuring", "judging"]
    assert again.fidelity is not None
    assert (again.fidelity.items, again.fidelity.cosine, again.fidelity.max_error) == (4, 1.0, 0.0)


def test_other_answers_are_seen(tmp_path: Path) -> None:
    fake = models.fake(tmp_path, scale=2.5)
    asyncio.run(run_trial(_job(tmp_path, ONNX, models.doubling(tmp_path), keep=True), LIMITS))
    found = asyncio.run(
        run_trial(_job(tmp_path, FAKE, fake, compare=True, classes=True, labels=[[0]] * 4), LIMITS)
    )
    assert found.fidelity is not None
    assert found.fidelity.max_error == 1.5
    assert found.fidelity.cosine == pytest.approx(1.0)
    assert (found.fidelity.top1_agreement, found.fidelity.accuracy) == (1.0, 1.0)


def test_judging_ends_with_its_time_and_its_room(tmp_path: Path) -> None:
    artifact = models.doubling(tmp_path)
    out_of_time = _job(tmp_path, ONNX, artifact, keep=True, judge_s=0)
    asyncio.run(run_trial(out_of_time, LIMITS))
    assert len(list(out_of_time.outputs.iterdir())) == 1
    room_for_three = _job(tmp_path, ONNX, artifact, keep=True, judge_bytes=3 * 3 * 4)
    asyncio.run(run_trial(room_for_three, LIMITS))
    assert len(list(room_for_three.outputs.iterdir())) == 3
    short = _job(tmp_path, ONNX, artifact, compare=True, judge_s=0)
    found = asyncio.run(run_trial(short, LIMITS)).fidelity
    assert found is not None
    assert found.items == 1


def test_slots_run_side_by_side(tmp_path: Path) -> None:
    artifact = models.fake(tmp_path, latency_ms=100)  # what a busy machine adds is little beside
    slots = replace(FAKE, setting=Setting(1, 4, 2))
    one, four = (
        asyncio.run(run_trial(replace(_job(tmp_path / name, candidate, artifact), seconds=0.5), LIMITS))
        for name, candidate in (("one", FAKE), ("four", slots))
    )
    assert one.throughput_per_s == pytest.approx(10, rel=0.3)
    assert four.throughput_per_s > 4 * one.throughput_per_s


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fail": "load"}, "told to fail while loading"),
        ({"fail": "run"}, "told to fail"),
        ({"fail": "crash"}, "It was killed"),
        ({"fail": "hang"}, "It took longer than 2 s and was ended."),
    ],
)
def test_a_trial_that_goes_wrong_is_a_sentence_and_leaves_no_process(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    limits = replace(LIMITS, wall_s=2) if fields["fail"] == "hang" else LIMITS
    with pytest.raises(TrialFailed, match=says):
        asyncio.run(run_trial(_job(tmp_path, FAKE, models.fake(tmp_path, **fields)), limits))
    assert not _trials()


def test_what_is_far_slower_is_stopped_early(tmp_path: Path) -> None:
    job = _job(tmp_path, FAKE, models.fake(tmp_path, latency_ms=20), stop_ms=5.0)
    with pytest.raises(StoppedAsSlower) as stopped:
        asyncio.run(run_trial(replace(job, seconds=30), LIMITS))
    assert stopped.value.p50_ms > 15


def test_an_engine_whose_library_is_missing_says_so(tmp_path: Path) -> None:
    gone = Candidate(Variant("tensorrt", device="cuda:0"), Setting(1))
    with pytest.raises(TrialFailed, match="tensorrt"):
        asyncio.run(run_trial(_job(tmp_path, gone, models.doubling(tmp_path)), LIMITS))


def test_cancelling_ends_its_process(tmp_path: Path) -> None:
    async def work() -> None:
        measuring = asyncio.Event()
        job = replace(_job(tmp_path, FAKE, models.fake(tmp_path)), seconds=60.0)
        trial = asyncio.create_task(run_trial(job, LIMITS, lambda phase: measuring.set()))
        await asyncio.wait_for(measuring.wait(), 30)
        assert _trials()
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial

    asyncio.run(work())
    assert not _trials()


def _trials() -> Sequence[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "trial_child" in " ".join(child.cmdline())
    ]
