"""Whole searches over real conversions, engines and processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from core.errors import ConversionFailed, Unprocessable
from core.optimiser import search as search_module
from core.optimiser.convert_child import ConvertJob, run_conversion
from core.optimiser.feeds import write_feeds
from core.optimiser.search import Found, Search, Subject, Wanted
from core.optimiser.space import Here
from tests.unit.engines import models

ONLY_ONNX = Here({"onnx": ["cpu"]}, {}, ["simplified", "int8-static"], 1)


def _ill_conditioned(folder: Path) -> Path:
    """Scores that hang on small numbers beside large ones: eight bits for both leave nothing of the small."""
    random = np.random.default_rng(1)
    spread = np.logspace(-4, 4, 64, dtype=np.float32)
    weights = random.standard_normal((64, 10), np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "spread"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    return models.save(
        folder,
        nodes,
        [models.value("x", "FP32", (-1, 64))],
        [models.value("y", "FP32", (-1, 10))],
        [numpy_helper.from_array(spread, "spread"), numpy_helper.from_array(weights / spread[:, None], "w")],
    )


def _search(
    folder: Path, wanted: Wanted, here: Here = ONLY_ONNX, *, calibrating: int = 8, items: int = 8, **fields: Any
) -> Search:
    """Eight batches of `items` judge; the first so many of them calibrate."""
    artifact = _ill_conditioned(folder)
    random = np.random.default_rng(2)
    batches = [{"x": random.standard_normal((items, 64), np.float32)} for _ in range(8)]
    feeds = write_feeds(batches, folder / "feeds")

    async def convert(conversion: str, timeout_s: float) -> tuple[Path, Mapping[str, Any]]:
        made = await run_conversion(ConvertJob(conversion, artifact, folder / conversion, feeds[:calibrating]))
        return made.path, made.notes

    subject = Subject(artifact, "onnx", feeds, folder / "reference", **{"classes": True, **fields})
    return Search(subject, wanted, here, convert, seconds=0.1)


def _by_label(found: Found) -> dict[str, Any]:
    return {trial.candidate.variant.label: trial for trial in reversed(found.trials)}


def test_a_model_whose_int8_is_garbage_keeps_its_precision(tmp_path: Path) -> None:
    search = _search(tmp_path, Wanted(budget_s=60))
    changes: list[str] = []
    search.on_change = lambda: changes.append(search.progress.phase)
    found = asyncio.run(search.run())
    rows = _by_label(found)
    int8 = rows["onnx int8 (int8-static)"]
    assert int8.status == "rejected", int8
    assert "at most 1.00% is allowed" in int8.reason
    assert int8.figures.fidelity.items == 64
    assert int8.figures.fidelity.top1_agreement < 0.9
    assert int8.notes["libraries"], "how it was made is told"
    simplified = rows["onnx fp32 (simplified)"]
    assert simplified.status == "ok"
    assert simplified.figures.fidelity.top1_agreement == 1.0
    assert found.recommendation is not None
    assert found.trials[found.recommendation.trial - 1].candidate.variant.precision == "fp32"
    assert found.trials[0].reference
    assert not found.unfinished
    assert changes[0].startswith("measuring the reference")
    assert "converting: int8-static" in changes
    assert search.progress.done == len(found.trials) <= search.progress.of


def test_one_calibrating_sample_is_said_and_judged_like_any_other(tmp_path: Path) -> None:
    """Ranges of one sample cut off what others reach; what needs more samples says so; neither is chosen."""
    here = Here({"onnx": ["cpu"], "openvino": ["cpu"]}, {}, ["int8-static", "bf16-compensated"], 1)
    search = _search(tmp_path, Wanted(budget_s=60), here, calibrating=1, items=1)
    found = asyncio.run(search.run())
    rows = _by_label(found)
    int8 = rows["onnx int8 (int8-static)"]
    assert "Only 1 sample(s) calibrated" in int8.notes["note"]
    assert int8.status == "rejected"
    assert int8.reason.startswith("Only 8 items judge it, and 20 are needed")
    assert rows["openvino bf16 (bf16-compensated)"].status == "failed"
    assert found.recommendation is not None
    assert found.trials[found.recommendation.trial - 1].candidate.variant.precision == "fp32"


def test_a_wide_tolerance_lets_the_same_pass(tmp_path: Path) -> None:
    wanted = Wanted(budget_s=60, max_accuracy_loss=1.0, precisions=("int8",))
    found = asyncio.run(_search(tmp_path, wanted).run())
    assert [trial.candidate.variant.precision for trial in found.trials[:2]] == ["fp32", "int8"]
    assert _by_label(found)["onnx int8 (int8-static)"].status == "ok"


def test_made_up_inputs_choose_nothing_lossy(tmp_path: Path) -> None:
    wanted = Wanted(budget_s=60, max_accuracy_loss=1.0, precisions=("int8",))
    found = asyncio.run(_search(tmp_path, wanted, synthetic=True).run())
    int8 = _by_label(found)["onnx int8 (int8-static)"]
    assert int8.status == "rejected"
    assert "upload some" in int8.reason
    assert found.recommendation is not None
    assert found.recommendation.trial == 1


def test_throughput_tries_slots_and_batches(tmp_path: Path) -> None:
    here = Here({"onnx": ["cpu"]}, {}, [], 2)
    found = asyncio.run(_search(tmp_path, Wanted("throughput", budget_s=60, precisions=("fp32",)), here).run())
    settings = [
        (t.candidate.setting.threads, t.candidate.setting.slots, t.candidate.setting.batch) for t in found.trials
    ]
    assert settings[0] == (1, 2, 1)
    assert {(1, 2, 8), (1, 2, 32), (2, 1, 8)} <= set(settings)
    best = found.trials[found.recommendation.trial - 1] if found.recommendation else None
    assert best is not None
    assert best.candidate.setting.batch > 1, "a matrix of 64 by 10 is all overhead"
    assert found.recommendation is not None
    assert found.recommendation.gain > 2


def test_a_conversion_that_fails_is_a_row(tmp_path: Path) -> None:
    search = _search(tmp_path, Wanted(budget_s=60, precisions=("int8",)))

    async def convert(conversion: str, timeout_s: float) -> tuple[Path, Mapping[str, Any]]:
        raise ConversionFailed("The model has nothing to quantise.")

    search.convert = convert
    found = asyncio.run(search.run())
    assert [(t.status, t.reason) for t in found.trials[1:]] == [("failed", "The model has nothing to quantise.")]
    assert found.recommendation is not None


def test_a_conversion_that_fails_is_asked_for_once(tmp_path: Path) -> None:
    here = Here({"onnx": ["cpu"], "openvino": ["cpu"]}, {}, ["int8-static"], 1)
    search = _search(tmp_path, Wanted(budget_s=60, precisions=("int8",)), here)
    asked: list[str] = []

    async def convert(conversion: str, timeout_s: float) -> tuple[Path, Mapping[str, Any]]:
        asked.append(conversion)
        raise ConversionFailed("The model has nothing to quantise.")

    search.convert = convert
    found = asyncio.run(search.run())
    assert [t.status for t in found.trials[1:]] == ["failed", "failed"], "by either engine"
    assert asked == ["int8-static"]


def test_time_is_kept_for_other_settings_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "KEPT_FOR_SETTINGS", 1)
    (tmp_path / "throughput").mkdir()
    (tmp_path / "latency").mkdir()
    found = asyncio.run(_search(tmp_path / "throughput", Wanted("throughput", budget_s=60)).run())
    assert found.unfinished
    assert [t.candidate.setting.batch for t in found.trials] == [1, 8, 32]
    found = asyncio.run(_search(tmp_path / "latency", Wanted(budget_s=60, precisions=("fp32",))).run())
    assert [t.candidate.variant.label for t in found.trials][1:] == ["onnx fp32 (simplified)"]


def test_a_conversion_may_not_take_the_time_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "KEPT_FOR_SETTINGS", 2)
    search = _search(tmp_path, Wanted("throughput", budget_s=60, precisions=("int8",)))
    given: list[float] = []

    async def convert(conversion: str, timeout_s: float) -> tuple[Path, Mapping[str, Any]]:
        given.append(timeout_s)
        raise ConversionFailed("It took too long.")

    search.convert = convert
    asyncio.run(search.run())
    assert 0 < given[0] < 30


def test_when_the_time_is_up_what_is_known_decides(tmp_path: Path) -> None:
    found = asyncio.run(_search(tmp_path, Wanted(budget_s=0.1)).run())
    assert found.unfinished
    assert len(found.trials) == 1
    assert found.recommendation is not None
    assert found.recommendation.trial == 1


def test_the_budget_counts_from_the_preparation_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SPARE_S", 1000.0)
    search = _search(tmp_path, Wanted(budget_s=3600))
    search.began = time.monotonic() - 3000
    found = asyncio.run(search.run())
    assert found.unfinished
    assert len(found.trials) == 1


def test_what_is_judged_is_bounded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module.Search, "_judging_s", 0.0)
    found = asyncio.run(_search(tmp_path, Wanted(budget_s=60, precisions=("int8",), max_accuracy_loss=1.0)).run())
    assert found.judged == 1
    int8 = _by_label(found)["onnx int8 (int8-static)"]
    assert int8.figures.fidelity.items == 8, "one file holds so many"
    assert int8.reason.endswith("upload more samples, or search longer.")


def test_a_model_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    search = _search(tmp_path, Wanted(budget_s=60))
    search.subject.artifact.write_bytes(b"no model")
    with pytest.raises(Unprocessable, match="The model as it is cannot be measured: ONNX Runtime cannot load"):
        asyncio.run(search.run())
