from __future__ import annotations

import asyncio
import gc
from typing import Any

import numpy as np
import pytest

from app.external.oip_statistics import Statistics
from core.errors import RunFailed
from core.serving.request import InferenceRequest, InferenceResult, Timing
from core.serving.runner import RunnerStats
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload


class Answering:
    """A target that answers at once, or fails."""

    model, version, task, modality = "m", 3, "tensor", "tensor"

    def __init__(self, fails: bool = False) -> None:
        spec = TensorSpec("x", "FP32", (-1, 2))
        self.signature = Signature((spec,), (spec,))
        self.fails = fails

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        if self.fails:
            raise RunFailed("No.")
        timing = Timing(queue=1, batch_wait=0.5, preprocess=2, infer=3, postprocess=4, total=10.5)
        items = len(request.payloads or ())
        return InferenceResult(self.model, self.version, self.task, timing, items=items)


def _told(statistics: Statistics, target: Any, runs: RunnerStats | None = None) -> dict[str, Any]:
    return statistics.of(target).to_json(target, runs or RunnerStats())


def test_success() -> None:
    statistics, target = Statistics(), Answering()
    result = asyncio.run(statistics.infer(target, InferenceRequest(payloads=[Payload(b"")] * 3)))
    statistics.of(target).succeeded(result)
    told = _told(statistics, target)
    assert (told["name"], told["version"], told["inference_count"]) == ("m", "3", 3)
    assert told["last_inference"] > 1.6e12
    parts = told["inference_stats"]
    assert parts["success"] == {"count": 1, "ns": 10_500_000}
    assert parts["queue"] == {"count": 1, "ns": 1_000_000}
    assert parts["compute_input"] == {"count": 1, "ns": 2_000_000}
    assert parts["compute_infer"] == {"count": 1, "ns": 3_000_000}
    assert parts["compute_output"] == {"count": 1, "ns": 4_000_000}
    assert parts["fail"] == parts["cache_hit"] == {"count": 0, "ns": 0}


def test_many_successes_add_up_as_one_by_one() -> None:
    statistics, alone, together = Statistics(), Answering(), Answering()
    result = asyncio.run(statistics.infer(alone, InferenceRequest(payloads=[Payload(b"")] * 2)))
    for _ in range(5):
        statistics.of(alone).succeeded(result)
    statistics.of(together).succeeded_all(10, np.array([[1, 0.5, 2, 3, 4, 10.5]] * 5), 1.7e9)
    told = {name: _told(statistics, target) for name, target in (("alone", alone), ("together", together))}
    assert told["together"].pop("last_inference") == 1_700_000_000_000
    assert told["alone"].pop("last_inference") > 1.6e12
    assert told["together"] == told["alone"]


def test_failure() -> None:
    statistics, target = Statistics(), Answering(fails=True)
    with pytest.raises(RunFailed):
        asyncio.run(statistics.infer(target, InferenceRequest(inputs={})))
    parts = _told(statistics, target)["inference_stats"]
    assert parts["fail"]["count"] == 1
    assert parts["fail"]["ns"] > 0
    assert parts["success"]["count"] == 0


def test_batches() -> None:
    runs = RunnerStats(batch_sizes={4: 2, 1: 3}, batch_seconds={4: 0.5, 1: 0.25})
    told = _told(Statistics(), Answering(), runs)
    assert told["execution_count"] == 5
    assert [(one["batch_size"], one["compute_infer"]) for one in told["batch_stats"]] == [
        (1, {"count": 3, "ns": 250_000_000}),
        (4, {"count": 2, "ns": 500_000_000}),
    ]


def test_they_go_with_the_version() -> None:
    statistics = Statistics()
    targets = [Answering() for _ in range(10)]
    for target in targets:
        statistics.of(target).failed(1)
    del targets, target
    gc.collect()
    assert len(statistics._by_target) == 0
